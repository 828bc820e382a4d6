"""How a report is shown: one file an output, each Report -> str; computes nothing."""
