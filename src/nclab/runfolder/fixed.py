"""Which layers a run fixes, in one line: for the terminal at its start, and for the sweep that the run is part of."""

from nclab.etf.recipe import Recipe
from nclab.training.observer import Start

MOST_LAYERS = 6  # named on one line


def fixed_layers(start: Start) -> str:
    """Which layers are fixed when a training starts, how, and which ones may become so."""
    by_how: dict[str, list[str]] = {}
    for layer, recipe in start.fixed:
        by_how.setdefault(how(recipe), []).append(layer)
    fixed = ", ".join(f"{_names(layers)} ({kind})" for kind, layers in by_how.items())
    if not start.may_switch:
        return f"fixed layers: {fixed or 'none'}"
    by_epoch: dict[int, list[str]] = {}
    for layer, epoch in start.candidates.items():
        by_epoch.setdefault(epoch, []).append(layer)
    later = [f"candidates from epoch {epoch}: {_names(layers)}" for epoch, layers in by_epoch.items()]
    return "; ".join([f"fixed layers: {fixed or 'none yet'}", *(later or ["the policy may fix some while training"])])


def how(recipe: Recipe) -> str:
    """How a layer is fixed: 'random ETF', 'frozen'."""
    return f"{recipe.frame} ETF" if recipe.kind == "etf" else recipe.kind


def _names(layers: list[str]) -> str:
    if len(layers) <= MOST_LAYERS:
        return ", ".join(layers)
    return f"{', '.join(layers[: MOST_LAYERS - 2])}, ..., {layers[-1]} ({len(layers)} layers)"
