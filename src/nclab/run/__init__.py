"""One run: built from its configuration, opened, finished, and loaded again."""
