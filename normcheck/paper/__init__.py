"""The claims of "Norm matters" (Hoffer et al., arXiv 1803.01814) as experiments that a laptop finishes in minutes."""
