"""Plans and sweeps: which runs stand behind a figure, and that none is lost, doubled or repeated."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import composed

from nclab.analysis import DRAWINGS
from nclab.cluster.workers import _run, run_all
from nclab.config.place import CONF
from nclab.config.plan import Plan, _expand
from nclab.config.record import Record
from nclab.config.schema import ConfigError
from nclab.data import DATASETS
from nclab.papers.wings import wing_names
from nclab.runfolder.folder import RunFolder

SMALL = ["dataset.train_size=200", "dataset.test_size=100", "checkpoint_seconds=0"]


def resolve(*parts: str, profile: str = "smoke", **how):
    return Plan(CONF, "simplex_etf").resolve(list(parts), profile, **how)


@pytest.mark.parametrize("name", wing_names())
def test_every_profile_of_every_plan_is_a_set_of_checked_runs(name):
    plan = Plan(CONF, name)
    assert list(plan.profiles) == ["smoke", "cpu", "gpu_hour", "paper"]
    for profile, size in plan.profiles.items():
        assert set(size["datasets"]) <= set(DATASETS.names())
        del size["datasets"][1:]
        parts = plan.resolve([], profile, seeds=[0])
        assert [part.name for part in parts] == [
            name for name, part in plan.parts.items() if part["size"] in size and not part.get("extra")
        ]
        parts += plan.resolve([name for name, part in plan.parts.items() if part.get("extra")], profile, seeds=[0])
        assert all(part.configs and DRAWINGS[part.draw] for part in parts)


@pytest.mark.fast
def test_the_papers_runs_are_those_of_the_paper():
    figure1, figure3 = (part.configs for part in resolve("figure1", "figure3", profile="paper", datasets=["mnist"]))
    assert {(c.etf.label, c.seed) for c in figure1} == {
        (label, seed) for label in ("none", "last1", "last2", "last3") for seed in range(10)
    }
    assert {(c.model.depth, c.model.width, c.epochs, c.dataset.name) for c in figure1} == {(5, 400, 400, "mnist")}
    assert {(c.model.blocks, c.etf.label) for c in figure3} == {
        (blocks, label) for blocks in (1, 2, 3, 4) for label in ("none", "ffn_all")
    }


def test_a_profile_may_sweep_name_a_dataset_and_leave_parts_out():
    plan = Plan(CONF, "depth")
    parts = plan.resolve(["depth_rn", "depth_text"], "paper", seeds=[0])
    assert [(part.name, part.dataset) for part in parts] == [
        ("depth_rn", "mnist"),
        ("depth_text", "imdb"),
        ("depth_rn", "cifar10"),
    ]
    blocks = (2, 3, 5, 8, 13, 21, 34)
    assert {(c.experiment_name, c.model.blocks, c.loss.l2) for c in parts[0].configs} == {
        *(("depth_rn1", b, 0.005) for b in blocks),
        *(("depth_rn2", b, 0.005 / b) for b in blocks),
        *(("depth_rn2_constant", b, 0.0025) for b in blocks),
    }
    assert {(c.epochs, c.batch_size, c.optimizer.lr, c.model.width) for c in parts[0].configs} == {
        (5000, None, 0.005, 64)
    }
    assert {(c.model.norm, c.optimizer.lr) for c in parts[1].configs} == {("pre", 0.001)}
    assert "depth_text" not in {part.name for part in plan.resolve([], "cpu", seeds=[0])}
    (named,) = plan.resolve(["depth_text"], "paper", datasets=["phrases"])
    assert named.dataset == "phrases"
    images = plan.resolve([], "paper", datasets=["digits"], seeds=[0])
    assert {part.dataset for part in images} == {"digits"}  # no images for texts
    with pytest.raises(ConfigError, match="part depth_text has no size in profile cpu: expected an entry text there"):
        plan.resolve(["depth_text"], "cpu")


def test_a_profile_may_give_every_size_its_own_seeds(tmp_path):
    (tmp_path / "paper" / "sized").mkdir(parents=True)
    (tmp_path / "paper" / "sized" / "plan.yaml").write_text(
        "parts:\n"
        "  long: {size: big, draw: figure1, runs: [etf=none]}\n"
        "  again: {size: same, draw: figure1, runs: [etf=none]}\n"
        "  wide: {size: small, draw: figure1, runs: [model.width=16]}\n"
        "profiles:\n"
        "  cpu:\n    datasets: [digits]\n    seeds: {big: [0, 1, 2], other: [0, 5]}\n"
        "    big: epochs=3\n    same: epochs=3\n    small: epochs=4\n"
    )
    for conf in CONF.iterdir():
        if conf.name != "paper":
            (tmp_path / conf.name).symlink_to(conf)
    plan = Plan(tmp_path, "sized")
    long, again, wide = plan.resolve([], "cpu")
    assert [[config.seed for config in part.configs] for part in (long, again, wide)] == [[0, 1, 2], [0, 5], [0, 5]]
    assert long.configs[0] is again.configs[0]  # one run, trained once
    assert [[config.seed for config in part.configs] for part in plan.resolve([], "cpu", seeds=[7])] == [[7], [7], [7]]


@pytest.mark.fast
def test_a_profile_says_how_many_seeds_one_process_trains_where_stacking_pays():
    unconstrained, first = Plan(CONF, "unconstrained"), Plan(CONF, "simplex_etf")
    assert (unconstrained.stack("cpu"), first.stack("cpu")) == (10, 1)
    assert unconstrained.stack("smoke") == 1  # three seeds, which are not batched
    with pytest.raises(ConfigError, match="unknown profile"):
        first.stack("huge")
    first.profiles["cpu"]["stack"] = "many"
    with pytest.raises(ConfigError, match="stack of profile cpu must be an integer of at least 1, got many"):
        first.stack("cpu")


def test_a_size_with_two_datasets_is_refused(tmp_path):
    (tmp_path / "paper" / "two").mkdir(parents=True)
    (tmp_path / "paper" / "two" / "plan.yaml").write_text(
        "parts: {text: {size: text, draw: depth, runs: [experiment=depth/t11_text]}}\n"
        "profiles: {cpu: {datasets: [digits], seeds: [0], text: 'dataset=phrases,imdb'}}\n"
    )
    with pytest.raises(ConfigError, match="the size of part text must name one dataset at most, got imdb, phrases"):
        Plan(tmp_path, "two").resolve([], "cpu")


def test_runs_that_several_parts_need_are_trained_once():
    parts = resolve()
    folders = [config.folder for part in parts for config in part.configs]
    assert len(set(folders)) < len(folders)
    by_folder = {}
    for part in parts:
        for config in part.configs:
            assert by_folder.setdefault(config.folder, config) is config


def test_a_run_records_its_paper_profile_and_every_part_that_needs_it():
    (part,) = resolve("figure2", seeds=[0], overrides=["epochs=12"], policy_overrides=["etf.threshold=0.5"])
    baseline, adaptive = part.configs
    words = ("epochs=12", "--policy", "etf.threshold=0.5")
    further = ("table1", "controls", "pareto", "memory", "collapse_curves", "collapse_heatmap")
    parts = ("figure1", "figure2", "depth_profile", *further)
    assert Record.read(baseline.paper) == Record("simplex_etf", "smoke", parts, words)
    assert Record.read(adaptive.paper).parts == ("figure2", *further)
    plain = replace(adaptive, paper=None)
    assert (plain.run_name, plain.folder) == (adaptive.run_name, adaptive.folder)


def test_a_run_records_parts_that_write_it_in_other_words():
    """transfer's base setting is a value of each of its four sweeps."""
    (part,) = Plan(CONF, "transfer").resolve(["complexity"], "smoke", seeds=[0])
    (base,) = (config for config in part.configs if not config.loss.complexity and config.dataset.class_split == 0)
    assert Record.read(base.paper).parts[:4] == ("l2", "lr", "batch", "complexity")
    overrides = ["loss=mse"]  # parts that were not asked for set keys that it lacks
    assert Plan(CONF, "long_tail").resolve(["minority"], "smoke", seeds=[0], overrides=overrides)


def test_an_extra_part_runs_where_it_is_named():  # and nowhere else: see the first test
    (gap,) = resolve("ffn_gap", seeds=[0])
    assert len(gap.configs) == 17


def test_own_choices_take_the_place_of_the_profiles():
    (part,) = resolve(
        "figure2",
        datasets=["mnist5k"],
        seeds=[7],
        overrides=["epochs=12"],
        policy_overrides=["etf.threshold=0.5"],
        output_root="/no (where), at all",
    )
    baseline, adaptive = part.configs
    assert (baseline.etf.name, adaptive.etf.name, adaptive.etf.threshold) == ("none", "adaptive", 0.5)
    assert {(c.dataset.name, c.seed, c.epochs, c.threads) for c in part.configs} == {("mnist5k", 7, 12, 1)}
    assert baseline.folder.is_relative_to("/no (where), at all")
    assert part.finished == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resolve("figure9"), "unknown part 'figure9'; did you mean figure4. valid: figure1, figure2"),
        (lambda: resolve(profile="huge"), "unknown profile 'huge'; valid: smoke, cpu, gpu_hour, paper"),
        (
            lambda: Plan(CONF, "pape"),
            "unknown paper 'pape'; valid: continual, depth, etf_networks, .*regression, simplex_etf",
        ),
        (lambda: resolve("figure1", datasets=["mnits"]), r"mnits.*\(in: dataset=mnits"),
        (lambda: resolve("figure1", overrides=["epochs=0"]), r"epochs must be at least 1 .*got 0 \(in: "),
        (lambda: resolve("figure1", overrides=["model.heads=2"]), "unknown key 'model.heads' of model=mlp"),
        (
            lambda: resolve("figure1", overrides=["dataset=mnist"]),
            "dataset is the plan's to set.*leave out dataset=mnist",
        ),
        (lambda: resolve("figure1", overrides=["+seed=3"]), "seed is the plan's to set"),
        (lambda: resolve("figure1", overrides=["seeds=[3,4]"]), "seeds is the plan's to set"),
        (lambda: resolve("figure1", overrides=["paper=mine"]), "paper is the plan's to set"),
        (lambda: resolve("figure1", overrides=["overwrite=true"]), "overwrite is the plan's to set"),
        (lambda: resolve("figure1", seeds=[0, 2**63]), "seeds must be between 0 and"),
        (lambda: run_all([], 0), "jobs must be at least 1, got 0"),
        (lambda: run_all([], 1, stack=0), "stack must be at least 1, got 0"),
        (lambda: run_all(resolve("figure3", overrides=["model.patch=3"])[0].configs, 1), "model.patch must divide"),
    ],
)
def test_wrong_choices_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_a_sweep_runs_what_is_not_finished_and_reports_what_failed(tmp_path, capfd):
    def configs(*more):
        return resolve("figure1", seeds=[0], overrides=[*SMALL, "epochs=2", *more], output_root=str(tmp_path))[
            0
        ].configs

    good, bad = configs(), configs("optimizer.lr=1e30", "model.norm=none")
    outcomes = run_all([*good[:2], bad[0]], jobs=2)
    assert {o.folder for o in outcomes} == {good[0].folder, good[1].folder, bad[0].folder}
    assert [o.folder for o in outcomes if o.error] == [bad[0].folder]
    assert "diverged in epoch 1" in next(o.error for o in outcomes if o.error)
    stamp = (good[0].folder / "summary.json").stat().st_mtime_ns
    assert [o.folder for o in run_all(good[:3], jobs=2)] == [good[2].folder]
    assert (good[0].folder / "summary.json").stat().st_mtime_ns == stamp
    assert run_all(good[:3], jobs=2) == []
    out = capfd.readouterr().out
    assert "3 runs, 2 finished before, 1 to do" in out
    assert f"FAILED {bad[0].folder}: training diverged" in out


def test_a_sweep_survives_a_killed_worker_and_a_failure_that_nobody_foresaw(tmp_path, monkeypatch, capfd):
    """A worker killed once costs nothing, one killed again and again only its own run; a bug costs its run alone."""
    (part,) = resolve("figure1", seeds=[0], overrides=[*SMALL, "epochs=2"], output_root=str(tmp_path))
    (tmp_path / "once").touch()
    monkeypatch.setenv("NCLAB_TEST_ONCE", str(tmp_path / "once"))
    monkeypatch.setattr("nclab.cluster.workers._run", killed_once)
    outcomes = run_all(part.configs[:2], jobs=1)
    assert [o.error for o in outcomes] == [None, None]
    assert "a worker was killed" in capfd.readouterr().out
    monkeypatch.setenv("NCLAB_TEST_ALWAYS", part.configs[2].run_name)
    monkeypatch.setattr("nclab.cluster.workers._run", killed_always)
    again = replace(part.configs[3], seed=1)
    outcomes = run_all([part.configs[2], again], jobs=1)
    assert [o.error for o in outcomes] == ["its worker was killed, again (out of memory?)", None]
    monkeypatch.undo()
    (tmp_path / "figure1" / part.configs[3].run_name).mkdir()
    torch.save({"format": 1}, tmp_path / "figure1" / part.configs[3].run_name / "checkpoint.pt")
    (outcome,) = run_all(part.configs[3:], jobs=1)
    assert outcome.error.startswith("KeyError: ")


def test_a_key_of_one_policy_is_left_out_beside_another():
    """One line for the baseline and k: four runs, the names those of two lines."""
    line = "experiment=simplex_etf/figure1 etf=none,last_k etf.k=1,2,3"
    first = "experiment=simplex_etf/figure1"
    assert _expand(line) == [(first, "etf=none"), *((first, "etf=last_k", f"etf.k={k}") for k in (1, 2, 3))]
    assert _expand("etf=none etf.k=1,2") == [
        ("etf=none", "etf.k=1"),
        ("etf=none", "etf.k=2"),
    ]  # refused later


def test_a_list_is_one_value():
    line = "model=cnn model.channels=[4,8],[16] etf=none"
    assert [words[1] for words in _expand(line)] == ["model.channels=[4,8]", "model.channels=[16]"]
    assert _expand(line)[0] == ("model=cnn", "model.channels=[4,8]", "etf=none")


def test_a_plugin_that_fails_in_a_worker_alone_is_the_error_of_its_runs(tmp_path, monkeypatch, capfd):
    """Not "its worker was killed, again (out of memory?)"."""
    text = "import multiprocessing\nif multiprocessing.parent_process():\n    raise OSError('no licence')\n"
    (tmp_path / "nclab_shy.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    config = composed(*SMALL, "epochs=1", "plugins=[nclab_shy]", f"output_root={tmp_path}")
    (outcome,) = run_all([config], jobs=1)
    assert outcome.error.startswith("plug-in 'nclab_shy' (named in plugins) cannot be imported")
    assert outcome.error.endswith("it raised OSError: no licence")
    assert "killed" not in capfd.readouterr().out


def killed_once(configs, wait):
    once = Path(os.environ["NCLAB_TEST_ONCE"])
    if once.exists():
        once.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return _run(configs, wait)


def killed_always(configs, wait):
    if configs[0].run_name == os.environ["NCLAB_TEST_ALWAYS"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return _run(configs, wait)


def test_runs_that_another_process_trains_are_waited_for(tmp_path, capfd):
    (part,) = resolve("figure2", seeds=[0], overrides=[*SMALL, "epochs=9"], output_root=str(tmp_path))
    with RunFolder(part.configs[0].folder):
        outcomes = []
        sweep = threading.Thread(target=lambda: outcomes.extend(run_all(part.configs, jobs=1)))
        sweep.start()
        deadline = time.monotonic() + 120
        while not (part.configs[1].folder / "DONE").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not (part.configs[0].folder / "DONE").exists()
    sweep.join(timeout=120)
    assert [o.error for o in outcomes] == [None, None]
    assert (part.configs[0].folder / "DONE").exists()
    assert "1 of them are being trained by another process" in capfd.readouterr().out


def paper(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", "from nclab.papers.command import main; main()", "run", "simplex_etf", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_make_paper_goes_on_after_ctrl_c_and_after_kill_9_and_leaves_no_orphan(tmp_path):
    arguments = ("--part", "figure2", "--profile", "smoke", "--seeds", "0", "--epochs", "60", "--output", str(tmp_path))
    arguments += ("--jobs", "2", *SMALL)
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        before = sum(log.stat().st_size for log in tmp_path.glob("*/*/metrics.csv"))
        process = paper(*arguments)
        deadline = time.monotonic() + 120
        while sum(log.stat().st_size for log in tmp_path.glob("*/*/metrics.csv")) < before + 5000:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, number)
        process.communicate(timeout=60)  # ends when its workers, which hold its output open, have ended too
        assert process.returncode == code
        assert len(list(tmp_path.glob("*/*/DONE"))) < 2
    again = paper(*arguments)
    _, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    resumes = [log.read_text().count('"resume"') for log in tmp_path.glob("*/*/events.jsonl")]
    assert len(resumes) == len(list(tmp_path.glob("*/*/DONE"))) == 2
    assert sum(resumes) >= 2
    assert (tmp_path / "simplex_etf" / "figures" / "figure2_digits.png").stat().st_size > 10_000
