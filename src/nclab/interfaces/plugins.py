"""Modules that bring entries for the registries from outside the core: papers' wings, installed packages, and what the
configuration names.

The core imports no wing and no plug-in by name. It looks in three places:

- every module under `nclab.papers.<wing>.parts`,
- every module that an installed package names in the entry-point group `nclab.plugins`,
- every module in the key `plugins: [module, ...]`, which is stored in the run folder.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

WINGS = "nclab.papers"
GROUP = "nclab.plugins"
PARTS = "parts"

_loaded = {"installed": False}
_named: dict[str, None] = {}  # modules of the key `plugins` that were imported, in their order


class PluginError(ValueError):
    """A plug-in cannot be imported; the message says which, what it raised and where it was named."""


def load_plugins(names: Iterable[str], where: str = "plugins") -> None:
    """Import the modules of the key `plugins`, so that what they register is found.

    The current folder is searched too, after everything else, as `nclab-train` does not have it on its path.

    Args:
        names: Modules, such as `my_package` or `my_package.models`.
        where: Where they are named, for the message: a key or a file.

    Raises:
        PluginError: A name is no module's, the module is absent, or it raises when it is imported.
    """
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise PluginError(f"expected the name of a module, such as my_package.models, in {where}; got {name!r}")
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)
            importlib.invalidate_caches()
        _import(name, where)
        _named[name] = None


def load_installed() -> None:
    """Import the parts of the papers' wings and the modules of the entry-point group `nclab.plugins`, once.

    Raises:
        PluginError: One of them raises when it is imported.
    """
    if _loaded["installed"]:
        return
    _loaded["installed"] = True  # before: a part may look into a registry while it is imported
    try:
        for name in wing_parts():
            _import(name, WINGS)
        for entry in installed():
            _import(entry.module, f"entry point {entry.name} of {_owner(entry)}")
    except PluginError:
        _loaded["installed"] = False
        raise


def wing_parts() -> Iterator[str]:
    """Names of all modules under `nclab.papers.<wing>.parts`."""
    if importlib.util.find_spec(WINGS) is None:
        return
    papers = importlib.import_module(WINGS)
    for wing in pkgutil.iter_modules(papers.__path__):
        parts = f"{WINGS}.{wing.name}.{PARTS}"
        if wing.ispkg and (spec := importlib.util.find_spec(parts)) is not None:
            yield parts
            for module in pkgutil.walk_packages(spec.submodule_search_locations or [], f"{parts}."):
                yield module.name


def installed() -> list[EntryPoint]:
    """The entry points of installed plug-ins. What is installed later is seen by the next process."""
    return list(_installed(tuple(sys.path)))


@cache  # a look at every installed package; a composition asks for it, and the help for each of its options
def _installed(_path: tuple[str, ...]) -> list[EntryPoint]:
    """Of the packages that this search path holds."""
    return sorted(entry_points(group=GROUP), key=lambda entry: (entry.module, entry.name))


def plugin_modules() -> list[str]:
    """Modules of all plug-ins, installed and named by the key `plugins` of this process; without the wings."""
    return list(dict.fromkeys([*(entry.module for entry in installed()), *_named]))


def conf_folders() -> list[Path]:
    """The folders conf/ beside the modules of plug-ins that this process has imported."""
    files = [getattr(sys.modules.get(name), "__file__", None) for name in plugin_modules()]
    folders = dict.fromkeys(Path(file).resolve().parent / "conf" for file in files if file)
    return [folder for folder in folders if folder.is_dir()]


def _import(name: str, where: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}.")
        reason = " ".join(str(error).split())
        if absent:
            reason = f"expected an installed package, or a module in PYTHONPATH or the current folder, got {reason}"
        else:
            reason = f"it raised {type(error).__name__}: {reason}"
        raise PluginError(f"plug-in '{name}' (named in {where}) cannot be imported: {reason}") from error


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an installed package"
