"""Plug-ins: modules that bring entries for the registries from outside the core."""

import subprocess
import sys

import pytest

from nclab.interfaces import plugins
from nclab.interfaces.plugins import PluginError, load_plugins
from nclab.interfaces.registry import Registry


@pytest.fixture
def module(tmp_path, monkeypatch):
    """module(name, text) writes a module into the current folder, which is not on the path yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_named", {})
    written = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_a_module_of_the_current_folder_is_found(module):
    load_plugins([module("nclab_here", "FOUND = True")])
    assert sys.modules["nclab_here"].FOUND
    assert "nclab_here" in plugins.plugin_modules()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"plug-in 'nclab_broken' \(named in x.yaml\) cannot be imported: expected an installed package, or a "
               "module in PYTHONPATH or the current folder, got No module named 'nclab_broken'"),
        ("import nclab_nowhere", "it raised ModuleNotFoundError: No module named 'nclab_nowhere'"),
        ("1 / 0", "it raised ZeroDivisionError: division by zero"),
        ("def", "it raised SyntaxError: invalid syntax"),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_imported_is_named(module, text, message):
    if text is not None:
        module("nclab_broken", text)
    with pytest.raises(PluginError, match=message):
        load_plugins(["nclab_broken"], "x.yaml")


@pytest.mark.parametrize("name", ["my package", "", "a..b", "../a", 3])
def test_a_plugin_is_the_name_of_a_module(name):
    with pytest.raises(PluginError, match=r"expected the name of a module, .*, in plugins; got"):
        load_plugins([name])


def test_a_name_that_is_taken_twice_names_both_modules():
    things = Registry("thing", "nclab.interfaces")

    def build(module):
        def made(settings):
            return settings

        made.__module__ = module
        return made

    things.add("a", object)(build("first"))
    with pytest.raises(ValueError, match="thing 'a' is registered twice: by first and by second"):
        things.add("a", object)(build("second"))
    things.add("a", int)(build("first"))  # the same definition again, as in a notebook
    assert things["a"].settings is int


def test_registries_find_the_parts_of_wings(tmp_path):
    """In a process of its own: a wing is there before nclab looks."""
    parts = tmp_path / "papers" / "some_wing" / "parts"
    (parts / "deeper").mkdir(parents=True)
    for folder in (parts.parent, parts, parts / "deeper"):
        (folder / "__init__.py").touch()
    (tmp_path / "papers" / "empty_wing").mkdir()
    (tmp_path / "papers" / "empty_wing" / "__init__.py").touch()
    registers = (
        "from nclab.etf.policy import POLICIES, ETFPolicy, PolicySettings\n"
        "@POLICIES.add('{0}', PolicySettings)\nclass Mine(ETFPolicy): pass\n"
    )
    (parts / "mine.py").write_text(registers.format("of_wing"))
    (parts / "deeper" / "other.py").write_text(registers.format("of_deeper"))
    code = (
        "import sys, types; papers = types.ModuleType('nclab.papers'); "
        f"papers.__path__ = [{str(tmp_path / 'papers')!r}]; "
        "papers.__spec__ = __import__('importlib.machinery').machinery.ModuleSpec('nclab.papers', None); "
        "sys.modules['nclab.papers'] = papers; from nclab.etf import POLICIES; print(*POLICIES.names())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"of_wing", "of_deeper", "none"} <= set(done.stdout.split())
