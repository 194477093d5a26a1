"""A sweep of many runs: it says how far it is, and what Slurm refuses leaves nothing behind."""

import threading
import time
from pathlib import Path

import pytest
from fake_slurm import QUICK

from nclab.cluster import launch
from nclab.cluster.launch import on_slurm
from nclab.cluster.slurm import SlurmError
from nclab.config.command import arguments
from nclab.config.place import CONF
from nclab.config.sweep import planned
from nclab.run.task import possible
from nclab.system import progress


def test_a_long_composition_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["-m", "dataset=digits", "model.width=40", "seed=range(4)"]
    plan = planned(arguments(words), CONF)
    assert (len(possible(plan)), capsys.readouterr().err) == (4, "")  # quick: no word
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    possible(planned(arguments(words), CONF))
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{done} {n} of 4 runs" for done in ("composed", "checked") for n in (1, 2, 3)]


def files(root: Path, but: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path != but and but not in path.parents)


@pytest.mark.parametrize("sbatch", ["echo 'sbatch: error: invalid account' >&2; exit 1", "exit 127"])
def test_a_refused_sweep_leaves_no_file_and_no_folder(tiny, cluster, tmp_path, sbatch):
    cluster.script("sbatch", sbatch)
    configs = [tiny(f"seed={seed}", f"experiment_name=exp{seed % 2}") for seed in range(4)]
    with pytest.raises(SlurmError):
        on_slurm(configs, QUICK)
    assert files(tmp_path, cluster.folder) == []


def test_without_an_answer_of_squeue_nothing_is_left(tiny, cluster, tmp_path):
    cluster.script("squeue", "exit 1")
    with pytest.raises(SlurmError, match="squeue does not answer"):
        on_slurm([tiny()], QUICK)
    assert files(tmp_path, cluster.folder) == []


def test_what_was_there_before_a_refusal_stays(tiny, cluster, tmp_path):
    config = tiny()
    note = config.folder.parent / "notes.txt"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    (Path(config.output_root) / ".slurm").mkdir(exist_ok=True)
    cluster.script("sbatch", "exit 1")
    with pytest.raises(SlurmError):
        on_slurm([config], QUICK)
    assert note.read_text() == "mine"
    assert (Path(config.output_root) / ".slurm" / "lock").exists()


def test_who_waits_for_a_lock_that_goes_takes_the_new_one(tmp_path):
    """The file that it waited for is no longer the one that others look at."""
    folder, order = tmp_path / ".slurm", []

    def other():
        with launch._one_at_a_time(folder):
            order.append((folder / "lock").exists())
            time.sleep(0.1)

    thread = threading.Thread(target=other)

    def refused():
        with launch._one_at_a_time(folder):
            thread.start()
            time.sleep(0.2)
            order.append("refused")
            raise SlurmError("no")

    with pytest.raises(SlurmError):
        refused()
    thread.join(5)
    assert order == ["refused", True]
