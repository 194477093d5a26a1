"""The prevalence of neural collapse in neural multivariate regression (Andriopoulos et al. 2024, arXiv 2409.04180)."""
