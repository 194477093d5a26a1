"""CSV files of docs/ are what the committed runs give today, those that the plan names for the picture."""

import tarfile
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from nclab.analysis.drawings import DRAWINGS, TABLE
from nclab.analysis.runs import load_runs
from nclab.config.place import CONF
from nclab.config.plan import Plan

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PICTURES = {  # CSV file -> archive, part, dataset: one picture of each wing but depth, of those that read few runs
    "continual/mlp_mnist.csv": ("continual", "mlp", "mnist"),
    "etf_networks/cnn_normalised_fashion_mnist.csv": ("etf_networks", "cnn_normalised", "fashion_mnist"),
    "cpu/table2.csv": ("simplex_etf", "controls_vit", "fashion_mnist"),
    "few_and_noisy_labels/test_accuracy.csv": (
        "simplex_etf-few_and_noisy_labels",
        "where_it_might_help",
        "fashion_mnist",
    ),
    "long_tail/minority_fashion_mnist.csv": ("long_tail", "minority", "fashion_mnist"),
    "regression/diabetes_diabetes.csv": ("regression", "diabetes", "diabetes"),
    "terminal_phase/last_layer_digits.csv": ("terminal_phase", "last_layer", "digits"),
    "transfer/complexity_fashion_mnist.csv": ("transfer", "complexity", "fashion_mnist"),
    "unconstrained/hadamard_face.csv": ("unconstrained-hadamard", "hadamard_face", "free_features"),
}


def extracted(archive, names, folder):
    """The run folders of these names in an archive."""
    with tarfile.open(archive) as tar:
        members = [member for member in tar if names & set(Path(member.name).parts)]
        tar.extractall(folder, members, filter="data")
    return sorted(file.parent for file in folder.rglob("config.yaml"))


def as_written(table):
    return pd.read_csv(StringIO(table.to_csv(index=False)))


@pytest.mark.parametrize("file", PICTURES)
def test_a_csv_of_the_docs_is_drawn_from_the_committed_runs(file, tmp_path):
    archive, part, dataset = PICTURES[file]
    (planned,) = Plan(CONF, archive.partition("-")[0]).resolve([part], "cpu", [dataset])
    names = {config.run_name for config in planned.configs}
    runs = load_runs(extracted(RESULTS / "evidence" / f"{archive}.tar.xz", names, tmp_path))
    assert {run.path.name for run in runs} == names
    made, numbers = DRAWINGS[planned.draw].draw(runs)
    tables = [as_written(made if DRAWINGS[planned.draw].kind == TABLE else numbers), pd.read_csv(RESULTS / file)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)
