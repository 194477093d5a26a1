"""Find the drawings and statistics that wings and installed packages register: their modules are imported, once."""

import importlib
import pkgutil

from nclab.analysis.runs import AnalysisError
from nclab.interfaces.plugins import PARTS, WINGS, PluginError, installed, load_plugins

# Modules of the drawings that are no paper's.
GENERAL = tuple(
    f"nclab.analysis.{module}"
    for module in ("summary", "metric_curves", "heatmap", "pareto", "memory_figure", "sweep_figure")
)
_loaded = {"all": False}


def load_registered() -> None:
    """Import every module of every wing but its parts, which may import torch, and the entry points `nclab.plugins`.

    Raises:
        AnalysisError: An installed package cannot be imported.
    """
    if _loaded["all"]:
        return
    _loaded["all"] = True  # before: a module may look into a registry while it is imported
    try:
        for module in (*GENERAL, *_wing_modules()):
            importlib.import_module(module)
        load_plugins((entry.module for entry in installed()), "entry points nclab.plugins")
    except BaseException as error:  # also an interrupt: the next call tries again
        _loaded["all"] = False
        if isinstance(error, PluginError):
            raise AnalysisError(str(error)) from error
        raise


def _wing_modules() -> list[str]:
    found = []
    for wing in pkgutil.iter_modules(importlib.import_module(WINGS).__path__, f"{WINGS}."):
        if wing.ispkg:
            modules = pkgutil.iter_modules(importlib.import_module(wing.name).__path__)
            found += [f"{wing.name}.{module.name}" for module in modules if module.name != PARTS]
    return found
