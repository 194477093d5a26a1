"""Prevalence of neural collapse during the terminal phase of deep learning training (Papyan, Han, Donoho 2020)."""
