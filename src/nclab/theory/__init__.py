"""Closed forms that training is judged against; each usable alone, in float64, without a network."""
