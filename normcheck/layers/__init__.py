"""What a norm is computed on: sources of values."""
