"""Real kernels, one module a project: each yields the kernels that it can run here."""
