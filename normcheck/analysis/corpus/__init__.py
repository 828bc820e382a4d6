"""The corpus of published failures: read from data/failures, and replayed under the kernels that had them."""
