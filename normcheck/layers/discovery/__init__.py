"""Finding the norm layers of a model in what it holds: by structure and evidence."""
