"""docs/notebooks/first_experiment.ipynb runs as it stands, in an empty folder, and shows what the repository holds."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "first_experiment.ipynb"


def texts(cell) -> str:
    """What a cell printed and returned, without pictures."""
    outputs = cell.get("outputs", [])
    return "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in outputs)


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = "\n".join(map(texts, notebook.cells))
    assert "test accuracy" in shown
    assert "fc is fixed, 5120 parameters fewer" in shown
    assert re.search(r"ETFLinear\(512, 10", shown)
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == 1
    assert "8/8  loss" in shown  # plain lines, no live bar
    (file,) = (tmp_path / "outputs" / "notebook").glob("*/metrics.csv")
    logged = pd.read_csv(file).query("epoch == 8 and split == 'test' and metric == 'nc1'")["value"].round(3)
    (nc1,) = re.findall(r"'nc1': ([0-9.]+), 'nc2_gram'", shown)  # of the test split against the class means of train
    assert float(nc1) in logged.tolist()
    if os.environ.get("NCLAB_WRITE_NOTEBOOK"):
        nbformat.write(notebook, NOTEBOOK)


def test_the_stored_notebook_was_run_without_an_error_and_names_no_machine():
    text = NOTEBOOK.read_text()
    notebook = nbformat.reads(text, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type in ("error",) for cell in code for output in cell.outputs)
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
