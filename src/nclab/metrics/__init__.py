"""Collapse metrics, usable alone.

`measure`: features that are at hand. `CollapseMeter`: a stream of batches. `measure_model`: any module and a loader.
"""

from nclab.interfaces.effective_depth import effective_depth, effective_depth_first
from nclab.metrics.at_hand import measure
from nclab.metrics.calibration import calibration
from nclab.metrics.collapse import dnc3_gram, image_of_means, subspace_alignment
from nclab.metrics.complexity import (
    geometric_collapse,
    geometric_complexity,
    geometric_complexity_estimate,
    sample_complexity,
)
from nclab.metrics.few_shot import few_shot_accuracy, half_probe_accuracy
from nclab.metrics.geometry import ClassMeans, geometry
from nclab.metrics.long_tail import largest_cosine, row_cosines
from nclab.metrics.margin import cosine_margin
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.model import ModelMeasures, measure_model
from nclab.metrics.outside import nc5, neco_auroc
from nclab.metrics.passes import WithinSums, class_sums, within_sums
from nclab.metrics.precision import full_precision
from nclab.metrics.probing import knn_accuracy, linear_probe_accuracy
from nclab.metrics.regression import explained_variance, nrc1, nrc2
from nclab.metrics.spectra import (
    effective_rank,
    feature_spectrum,
    gnc2,
    hyperspherical_uniformity,
    spectrum,
    stable_rank,
)

__all__ = [
    "ClassMeans",
    "CollapseMeter",
    "ModelMeasures",
    "WithinSums",
    "calibration",
    "class_sums",
    "cosine_margin",
    "dnc3_gram",
    "effective_depth",
    "effective_depth_first",
    "effective_rank",
    "explained_variance",
    "feature_spectrum",
    "few_shot_accuracy",
    "full_precision",
    "geometric_collapse",
    "geometric_complexity",
    "geometric_complexity_estimate",
    "geometry",
    "gnc2",
    "half_probe_accuracy",
    "hyperspherical_uniformity",
    "image_of_means",
    "knn_accuracy",
    "largest_cosine",
    "linear_probe_accuracy",
    "measure",
    "measure_model",
    "nc5",
    "neco_auroc",
    "nrc1",
    "nrc2",
    "row_cosines",
    "sample_complexity",
    "spectrum",
    "stable_rank",
    "subspace_alignment",
    "within_sums",
]
