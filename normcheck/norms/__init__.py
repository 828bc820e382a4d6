"""What is computed: statistics and constants, norms, implementations, the forward pass, weight norms."""
