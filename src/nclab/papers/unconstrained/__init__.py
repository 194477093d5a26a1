"""Unconstrained features: neural collapse where theory gives exact numbers (Zhu et al. 2021 and others)."""
