"""Live torch models: their norms, and what reaches them when they run."""
