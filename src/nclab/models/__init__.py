"""One module a model; each registers itself in `nclab.models.base.MODELS` under the name of its YAML file."""

from nclab.models.base import MODELS, Classifier

__all__ = ["MODELS", "Classifier"]
