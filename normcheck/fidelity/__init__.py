"""The fidelity suite: the catalogue's rows beside the real kernels that are installed, compared bit for bit."""
