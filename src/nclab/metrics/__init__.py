"""Collapse metrics, usable alone: `from nclab.metrics import measure`."""

from nclab.metrics.collapse import ClassMeans, Spread, class_sums, full_precision, geometry, spread, subspace_alignment
from nclab.metrics.depth import effective_depth, effective_depth_first
from nclab.metrics.meter import CollapseMeter, measure

__all__ = [
    "ClassMeans",
    "CollapseMeter",
    "Spread",
    "class_sums",
    "effective_depth",
    "effective_depth_first",
    "full_precision",
    "geometry",
    "measure",
    "spread",
    "subspace_alignment",
]
