"""One module a model; each registers itself in `nclab.models.base.MODELS` under the name of its YAML file."""

from nclab.models.base import MODELS, PROBES, Classifier, Probe, layer_of

__all__ = ["MODELS", "PROBES", "Classifier", "Probe", "layer_of"]
