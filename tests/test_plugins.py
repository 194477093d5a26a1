"""Plug-ins: modules that bring entries for the registries from outside the core."""

import subprocess
import sys
from pathlib import Path

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


MINE = """
from dataclasses import dataclass
from nclab.etf.policies.last_k import LastK, LastKSettings
from nclab.etf.policy import POLICIES

@POLICIES.add("mine", LastKSettings)
class Mine(LastK):
    pass
"""
TINY = ("dataset.train_size=200", "dataset.test_size=100", "model.width=16", "model.depth=3", "epochs=1", "threads=1")


def nclab_train(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    """By its console command, which has no current folder on its path."""
    command = [str(Path(sys.executable).parent / "nclab-train"), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_key_plugins_brings_a_module_of_the_current_folder(tmp_path):
    """Its settings class is nclab's own: workers of a sweep get the module by the key alone."""
    (tmp_path / "mine.py").write_text(MINE)
    words = ("plugins=[mine]", "etf=mine", *TINY)
    swept = nclab_train("-m", "hydra/launcher=local", "hydra.launcher.jobs=2", *words, "etf.k=1,2", cwd=tmp_path)
    assert swept.returncode == 0, swept.stderr
    folders = sorted((tmp_path / "outputs" / "main").glob("*/DONE"))
    assert [folder.parent.name.rpartition("-")[0] for folder in folders] == [
        "digits-mlp3x16-mine_last1-e1-s0",
        "digits-mlp3x16-mine_last2-e1-s0",
    ]
    folder = folders[0].parent
    assert "plugins:\n- mine\n" in (folder / "config.yaml").read_text()
    again = nclab_train(f"resume={folder}", "overwrite=true", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    (tmp_path / "mine.py").unlink()
    gone = nclab_train(f"resume={folder}", cwd=tmp_path)
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)
    assert f"plug-in 'mine' (named in {folder}/config.yaml) cannot be imported: expected an installed" in gone.stderr


def test_a_plugin_with_a_name_of_ours_is_one_line(module, tmp_path):
    module("nclab_taken", "from nclab.data import DATASETS, ImageSettings\n"
           "@DATASETS.add('digits', ImageSettings)\ndef build(settings, root):\n    pass\n")  # fmt: skip
    command = [sys.executable, "-m", "nclab.train", "plugins=[nclab_taken]", f"output_root={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "dataset 'digits' is registered twice: by nclab_taken and by nclab.data.digits" in done.stderr
    assert len(done.stderr.splitlines()) == 1
