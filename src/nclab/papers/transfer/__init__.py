"""Geometric complexity, collapse and transfer to new classes (Munn, Dherin and Gonzalvo 2024, arXiv 2405.15706)."""
