"""Configuration: the torch-free keys, the typed schema, the words of a command line, and plans of many runs."""
