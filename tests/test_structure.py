"""The shape of the house: no import circle, arrows between rooms, and parts that can be used alone."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
MODULES = {".".join(p.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): p for p in SRC.rglob("*.py")}

# The rooms that a room may import from. A file beside the rooms (train.py, slurm.py) counts as one.
ARROWS = {
    "interfaces": "",
    "system": "",
    "data": "interfaces system",
    "etf": "interfaces",
    "metrics": "interfaces theory",
    "models": "interfaces",
    "parallel": "etf system",
    "theory": "",
    "training": "data etf interfaces metrics models parallel system",
    "runfolder": "etf interfaces metrics models system training",
    "config": "data etf interfaces models parallel runfolder system training",
    "run": "analysis config data etf interfaces models parallel runfolder system training",
    "analysis": "config interfaces system",
    "runs": "analysis system",
    "cluster": "config interfaces parallel run runfolder runs system training",
    "papers": "analysis cluster config data etf interfaces metrics models run system theory training",
    "train": "cluster config parallel run system training",
    "start": "config train",
    "bench": "config data etf interfaces models parallel run runfolder system train training",
    "slurm": "cluster",
    "hydra_plugins": "config",
}
CORE = (
    "interfaces",
    "data",
    "etf",
    "metrics",
    "models",
    "theory",
)  # each can be used without runs, their files and commands
NOT_IN_CORE = {"hydra", "omegaconf", "wandb"}


def imported(source: str) -> set[str]:
    """Everything that a module imports, inside functions and conditions too: `from a import b` is a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"imports are absolute: {ast.unparse(node)}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def graph_of(sources: dict[str, str]) -> dict[str, set[str]]:
    """module -> the modules of `sources` that it imports; parents of submodules do not count."""
    graph = {}
    for module, source in sources.items():
        names = imported(source)
        known = {name if name in sources else name.rpartition(".")[0] for name in names}
        graph[module] = {name for name in known if name in sources and name != module}
    return graph


def room_of(module: str) -> str:
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "nclab" else package


def wrong_arrows(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Imports from one room of another that ARROWS does not allow."""
    arrows = {(module, needed) for module, all_needed in graph.items() for needed in all_needed}
    between = {(a, b) for a, b in arrows if room_of(a) != room_of(b)}
    return {(a, b) for a, b in between if room_of(b) not in ARROWS[room_of(a)].split()}


SOURCES = {module: path.read_text() for module, path in MODULES.items()}
GRAPH = graph_of(SOURCES)


def test_no_import_circle():
    TopologicalSorter(GRAPH).prepare()
    assert len(GRAPH) > 100


def test_a_circle_through_an_import_inside_a_function_is_found():
    sources = {"nclab.run.a": "def f():\n    from nclab.run.b import g", "nclab.run.b": "import nclab.run.a"}
    with pytest.raises(CycleError):
        TopologicalSorter(graph_of(sources)).prepare()


def test_rooms_import_along_the_arrows():
    assert wrong_arrows(GRAPH) == set()


def test_an_arrow_the_wrong_way_is_found():
    lazily = "def f():\n    from nclab.runfolder import checkpoint"
    sources = {"nclab.training.new": lazily, "nclab.runfolder.checkpoint": "", "nclab.run.x": lazily}
    assert wrong_arrows(graph_of(sources)) == {("nclab.training.new", "nclab.runfolder.checkpoint")}


def test_the_arrows_point_down():
    """papers -> run -> training -> {etf, metrics, models, data}, and nothing imports a wing."""
    order = list(TopologicalSorter({room: needed.split() for room, needed in ARROWS.items()}).static_order())
    for below, above in pairwise(("data", "training", "runfolder", "run", "papers")):
        assert order.index(below) < order.index(above)
    assert not any("papers" in needed.split() for needed in ARROWS.values())


@pytest.mark.parametrize("room", CORE)
def test_the_core_imports_neither_hydra_nor_a_tracker(room):
    there = {module for module in SOURCES if room_of(module) == room}
    tops = {name.partition(".")[0] for module in there for name in imported(SOURCES[module])}
    assert there
    assert tops & NOT_IN_CORE == set()


def test_the_core_imports_no_wing():
    """Not even inside a function, nor the commands of the papers' room."""
    for module, file in MODULES.items():
        if module.startswith("nclab.papers"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("nclab.papers")], f"{module} imports a wing"
    assert any(module.startswith("nclab.papers.depth.parts.") for module in MODULES)


def test_the_papers_room_names_no_wing():
    wings = {
        module.split(".")[2] for module in MODULES if module.count(".") >= 3 and module.startswith("nclab.papers.")
    }
    assert {"depth", "simplex_etf"} <= wings
    for module, file in MODULES.items():
        if module.startswith("nclab.papers.") and module.split(".")[2] not in wings:
            found = [wing for wing in wings if f"nclab.papers.{wing}" in file.read_text()]
            assert not found, f"{module} names {found}"


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("nclab.metrics", ("hydra", "omegaconf", "wandb", "nclab.config.schema", "nclab.runfolder.folder")),
        ("nclab.etf", ("hydra", "omegaconf", "wandb", "nclab.config.schema", "nclab.runfolder.folder")),
        ("nclab.models", ("hydra", "omegaconf", "wandb", "nclab.config.schema", "nclab.runfolder.folder")),
        ("nclab.analysis", ("hydra", "omegaconf", "wandb", "torch")),
        ("nclab.papers.command", ("hydra", "omegaconf", "wandb", "torch")),
        ("nclab.config.schema", ("wandb",)),
        ("nclab.cluster.job", ("torch", "hydra", "nclab.config.schema")),
        ("nclab.config.keys", ("torch", "hydra", "omegaconf", "yaml", "nclab.interfaces.plugins")),
        ("nclab.interfaces.registry", ("torch", "hydra", "omegaconf", "nclab.models")),
        (
            "nclab.runs",
            ("torch", "hydra", "omegaconf", "wandb", "pandas", "matplotlib", "yaml", "nclab.runfolder.folder"),
        ),
    ],
)
def test_parts_can_be_imported_alone(package, absent):
    code = f"import sys, {package}; print([m for m in {absent} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_requirements_hold_no_address():
    text = (SRC.parent / "requirements.lock").read_text()
    assert "://" not in text
    assert "index" not in text.split("annotated-types")[0]
