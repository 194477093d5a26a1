"""Collapse metrics, usable alone.

"""

from nclab.metrics.collapse import subspace_alignment
from nclab.metrics.depth import effective_depth, effective_depth_first
from nclab.metrics.geometry import ClassMeans, geometry
from nclab.metrics.meter import CollapseMeter, measure
from nclab.metrics.passes import WithinSums, class_sums, within_sums
from nclab.metrics.precision import full_precision

__all__ = [
    "ClassMeans",
    "CollapseMeter",
    "WithinSums",
    "class_sums",
    "effective_depth",
    "effective_depth_first",
    "full_precision",
    "geometry",
    "measure",
    "subspace_alignment",
    "within_sums",
]
