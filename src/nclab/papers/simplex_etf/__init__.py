"""Leveraging Intermediate Neural Collapse with Simplex ETFs (arXiv 2412.00884)."""
