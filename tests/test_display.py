"""A bar on a terminal, plain lines elsewhere; both with the numbers that matter."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from nclab.config.sweep import Job
from nclab.etf.recipe import Recipe
from nclab.run.execute import train, train_seeds
from nclab.run.task import train_jobs
from nclab.runfolder.display import Display, SeedsDisplay
from nclab.runfolder.fixed import fixed_layers
from nclab.training.evaluate import Evaluation
from nclab.training.observer import EpochEnd, Start

LAST = Evaluation(
    values={
        "train": {
            "fc1": {"ncc_accuracy": 0.714},
            "fc2": {"ncc_accuracy": 1.0},
            "network": {"accuracy": 0.9, "effective_depth": 2.0},
        },
        "test": {"network": {"accuracy": 0.8}},
    },
    stages={"fc1": ("fc1",), "fc2": ("fc2",)},
)


def ended(epoch, evaluation, loss, learnable):
    """An epoch of one second, a quarter of it measuring."""
    return EpochEnd(epoch, loss, evaluation, learnable, train_seconds=0.75, measure_seconds=0.25)


def shown(terminal: bool, epochs: int = 40) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, soft_wrap=True)
    display = Display("a-run", epochs, console)
    display.open()
    for epoch in range(1, epochs + 1):
        display.epoch(ended(epoch, LAST, 0.5, 1234))
    display.say("a line that stays")
    display.close()
    return out.getvalue()


def tree_of(width=100, **keys):
    """The lines of a tree where no terminal is."""
    out = io.StringIO()
    display = Display("a-run", 3, Console(file=out, width=width, soft_wrap=True), keys=keys)
    display.layers = "fixed layers: fc5 (random ETF)"
    display.open()
    return out.getvalue().splitlines()


@pytest.mark.fast
def test_the_configuration_is_a_tree_of_words_that_can_be_typed():
    lines = tree_of(
        dataset={"name": "digits", "train_size": 200, "valid_size": None},
        etf={"name": "last_k", "k": 1},
        sampler={"name": "shuffled"},
        metrics={"suite": ["collapse", "[odd]"], "every": 0},
        seed=0,
        tf32=False,
        plugins=[],
    )
    assert [line.rstrip() for line in lines] == [
        "a-run: 3 epochs",
        "├── dataset=digits",
        "│   └── dataset.train_size=200",
        "├── etf=last_k",
        "│   ├── etf.k=1",
        "│   └── fixed layers: fc5 (random ETF)",
        "├── sampler=shuffled",
        "├── metrics",
        "│   └── metrics.suite=[collapse,[odd]] metrics.every=0",
        "└── seed=0 tf32=false plugins=[]",
    ]


@pytest.mark.fast
def test_no_line_of_the_tree_is_wider_than_the_terminal():
    lines = tree_of(width=40, dataset={"name": "digits", **{f"key_{i}": i for i in range(20)}})
    assert max(map(len, lines)) <= 40
    assert " ".join(lines).count("dataset.key_") == 20


def test_a_single_run_shows_its_configuration_and_others_do_not(tiny, capsys, monkeypatch):
    """Not the secret in it, and not where print_config=false says so."""
    monkeypatch.setenv("MY_API_KEY", "s3cr3t-s3cr3t-s3cr3t")
    config = tiny("epochs=1", "etf=last_k")
    config.paper = "s3cr3t-s3cr3t-s3cr3t"

    def out_of(config, *words):
        config.overwrite = True
        assert train_jobs([Job(words, config)], tell=True)
        return capsys.readouterr().out

    shown = out_of(config)
    assert "├── etf=last_k" in shown
    assert shown.count("fixed layers: fc4 (random ETF)") == 1
    assert "s3cr3t" not in shown
    assert "──" not in out_of(replace(config, print_config=False))
    assert "──" not in out_of(replace(config, seeds=[0, 1]))
    assert train_jobs([Job((), replace(config, seed=5))])
    assert "──" not in capsys.readouterr().out


@pytest.mark.fast
def test_plain_lines_are_few_and_complete():
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 12
    assert lines[0] == "a-run: 40 epochs"
    assert lines[-2] == "  40/40  loss 0.5000  train/test 0.9000/0.8000  ncc .71 1.00  depth 2  learn 1,234  1.00 s"
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_live_bar():
    text = shown(terminal=True)
    assert "\x1b[" in text
    assert "40/40" in text
    assert "train/test 0.9000/0.8000" in text
    assert "a line that stays" in text


def test_what_was_not_measured_is_not_shown():
    out = io.StringIO()
    display = Display("a-run", 1, Console(file=out, width=120))
    display.open()
    display.epoch(ended(1, None, 0.25, 10))
    assert out.getvalue().splitlines()[0] == "a-run: 1 epoch"
    assert out.getvalue().splitlines()[-1] == "  1/1  loss 0.2500  learn 10  1.00 s"


def test_several_seeds_share_a_line_of_means():
    out = io.StringIO()
    other = Evaluation(
        values={
            "train": {
                "fc1": {"ncc_accuracy": 0.734},
                "fc2": {"ncc_accuracy": 0.9},
                "network": {"accuracy": 0.8, "effective_depth": 1.0},
            },
            "test": {"network": {"accuracy": 0.7}},
        },
        stages=LAST.stages,
    )
    with SeedsDisplay("runs, seeds 3, 5", 2, Console(file=out, width=120, soft_wrap=True)) as display:
        one, two = display.of(3), display.of(5)
        two.say("  epoch 1: fc2 is fixed")
        one.epoch(ended(1, None, 0.5, 100))
        two.epoch(ended(1, None, 0.25, 50))
        display.flush()
        display.flush()
        one.epoch(ended(2, LAST, 0.5, 100))
        two.epoch(ended(2, other, 0.25, 50))
        display.flush()
    assert out.getvalue().splitlines() == [
        "runs, seeds 3, 5: 2 epochs",
        "  seed 5: epoch 1: fc2 is fixed",
        "  1/2  loss 0.3750  learn 75  2.00 s",
        "  2/2  loss 0.3750  train/test 0.8500/0.7500  ncc .72 .95  depth 1.5  learn 75  2.00 s",
    ]


def test_an_epoch_that_was_not_measured_repeats_no_older_number(tiny, capsys):
    """With metrics.every=3 epochs 1, 2, 4, 5 show their loss alone."""
    train(tiny("metrics.every=3"))
    lines = [line for line in capsys.readouterr().out.splitlines() if "/6" in line]
    assert [("train/test" in line, "loss" in line) for line in lines] == [(e % 3 == 0, True) for e in range(1, 7)]


@pytest.mark.parametrize("keys", [("seed=0",), ("seeds=[0,1]",)])
def test_a_reader_that_leaves_costs_no_training(tmp_path, keys):
    """As `nclab-train | head -1` does: the pipe is closed after the first line."""
    words = ("epochs=12", "model.width=8", "batch_size=50", "dataset.train_size=100", "threads=1")
    command = [sys.executable, "-m", "nclab.train", *words, *keys, f"output_root={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "12 epochs" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert all((folder / "DONE").exists() for folder in (tmp_path / "main").iterdir())


def test_a_terminal_that_cannot_be_written_falls_silent():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    display = Display("a-run", 3, Console(file=Full(), width=120))
    display.open()
    display.epoch(ended(1, None, 0.5, 10))
    assert display.console.quiet


def test_a_run_says_at_its_start_which_layers_are_fixed(tiny, capsys):
    """Also head and last feed-forward layer of a ViT, which etf.k=2 counts as the last two."""
    vit = ("model=vit", "dataset=mnist5k", "epochs=1", "model.patch=14")
    for words, line in (
        (("epochs=1",), "fixed layers: none"),
        (("etf=last_k", "etf.k=2", "epochs=1"), "fixed layers: fc3, fc4 (random ETF)"),
        (("etf=last_k", "etf.kind=frozen", "epochs=1"), "fixed layers: fc4 (frozen)"),
        (
            ("etf=last_k", "etf.k=2", "etf.frame=hadamard", "epochs=1"),
            "fixed layers: fc3 (hadamard ETF), fc4 (random ETF)",
        ),
        (("etf=last_k", "etf.k=2", *vit), "fixed layers: block2.ffn_out, head (random ETF)"),
        (
            ("etf=adaptive", "etf.patience=1", "epochs=3", "etf.start=2"),
            "fixed layers: none yet; candidates from epoch 2: fc2, fc3, fc4",
        ),
        (("etf=last_k", "seeds=[0,1]", "epochs=1"), "fixed layers: fc4 (random ETF)"),
    ):
        config = tiny(*words)
        train_seeds([config.of_seed(seed) for seed in config.seeds]) if config.seeds else train(config)
        out = capsys.readouterr().out.splitlines()
        assert out[1].strip() == line
        assert sum("fixed layers" in text for text in out) == 1


def test_a_run_that_goes_on_says_what_is_fixed_by_then():
    recipe = Recipe(frame="nearest")
    layers = [f"fc{n}" for n in range(1, 9)]
    start = Start(3, [], [], fixed=[("fc9", recipe)], candidates=dict.fromkeys(layers, 2), may_switch=True)
    assert fixed_layers(start) == (
        "fixed layers: fc9 (nearest ETF); candidates from epoch 2: fc1, fc2, fc3, fc4, ..., fc8 (8 layers)"
    )
    unnamed = Start(0, [], [], may_switch=True)
    assert fixed_layers(unnamed) == "fixed layers: none yet; the policy may fix some while training"
