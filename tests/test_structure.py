"""The shape of the house: no import cycle, and parts that can be used alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from nclab.analysis.labels import DECIDES_BY_MEASURES
from nclab.etf import POLICIES

SRC = Path(__file__).parents[1] / "src"
MODULES = {".".join(p.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): p for p in SRC.rglob("*.py")}


def imports(module: str) -> set[str]:
    """Modules of nclab that the module imports at its top level, parents of submodules apart."""
    found = set()
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
    return {name for name in found if name in MODULES and name != module}


def test_no_import_cycle():
    graph = {module: imports(module) for module in MODULES}
    done, path = set(), []

    def visit(module):
        assert module not in path, f"import cycle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            path.append(module)
            for needed in sorted(graph[module]):
                visit(needed)
            done.add(path.pop())

    for module in sorted(graph):
        visit(module)
    assert len(done) == len(MODULES) > 30


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("nclab.metrics", ("hydra", "omegaconf", "wandb", "nclab.config.schema", "nclab.runfolder.folder")),
        ("nclab.etf", ("hydra", "omegaconf", "wandb", "nclab.config.schema", "nclab.runfolder.folder")),
        ("nclab.models", ("hydra", "omegaconf", "wandb", "nclab.config.schema", "nclab.runfolder.folder")),
        ("nclab.analysis", ("hydra", "omegaconf", "wandb", "torch")),
        ("nclab.config.schema", ("wandb",)),
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


def test_analysis_knows_the_policies_that_decide_by_measures():
    settings = {name: POLICIES[name].settings() for name in POLICIES.names()}
    assert {name for name, policy in settings.items() if policy.needs_measures} == DECIDES_BY_MEASURES


def test_requirements_hold_no_address():
    text = (SRC.parent / "requirements.lock").read_text()
    assert "://" not in text
    assert "index" not in text.split("annotated-types")[0]
