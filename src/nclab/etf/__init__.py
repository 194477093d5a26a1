"""Simplex ETFs: the frames, linear maps fixed to them, and the policies that say which maps and when."""

from nclab.etf.frame import nearest_etf, nearest_etf_product, simplex_basis, simplex_etf
from nclab.etf.layer import ETFLinear, FixedLinear, FrozenLinear, ImplicitETFLinear, Recipe, etf_weight, fix
from nclab.etf.policy import POLICIES, ETFPolicy, Measures, Switch

__all__ = [
    "POLICIES",
    "ETFLinear",
    "ETFPolicy",
    "FixedLinear",
    "FrozenLinear",
    "ImplicitETFLinear",
    "Measures",
    "Recipe",
    "Switch",
    "etf_weight",
    "fix",
    "nearest_etf",
    "nearest_etf_product",
    "simplex_basis",
    "simplex_etf",
]
