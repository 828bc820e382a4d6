"""What it means: deviation, headroom, rules, and the one place that joins everything into a Report."""
