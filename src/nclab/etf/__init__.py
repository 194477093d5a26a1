"""Simplex ETFs: the frames, linear layers fixed to them, and what says which layers and when."""

from nclab.etf.convert import AdaptiveETF, convert
from nclab.etf.frame import nearest_etf, nearest_etf_product, simplex_basis, simplex_etf
from nclab.etf.layer import ETFLinear, FixedLinear, FrozenLinear, ImplicitETFLinear, fix
from nclab.etf.nearest import nearest_head
from nclab.etf.nearest_head import NearestETFHead
from nclab.etf.policy import POLICIES, ETFPolicy, Measures, Switch
from nclab.etf.recipe import Recipe, etf_weight
from nclab.etf.state import fixed_layers, load_without_fixed, state_without_fixed

__all__ = [
    "POLICIES",
    "AdaptiveETF",
    "ETFLinear",
    "ETFPolicy",
    "FixedLinear",
    "FrozenLinear",
    "ImplicitETFLinear",
    "Measures",
    "NearestETFHead",
    "Recipe",
    "Switch",
    "convert",
    "etf_weight",
    "fix",
    "fixed_layers",
    "load_without_fixed",
    "nearest_etf",
    "nearest_etf_product",
    "nearest_head",
    "simplex_basis",
    "simplex_etf",
    "state_without_fixed",
]
