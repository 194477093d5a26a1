"""A bar on a terminal, plain lines elsewhere; both with the numbers that matter."""

import io

from rich.console import Console

from nclab.runfolder.display import Display, SeedsDisplay
from nclab.training.evaluate import Evaluation

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


def shown(terminal: bool, epochs: int = 40) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, soft_wrap=True)
    with Display("a-run", epochs, console) as display:
        for epoch in range(1, epochs + 1):
            display.update(epoch, 1.25, 1234, 0.5, LAST)
        display.say("a line that stays")
    return out.getvalue()


def test_plain_lines_are_few_and_complete():
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 12
    assert lines[0] == "a-run: 40 epochs"
    assert lines[-2] == "  40/40  loss 0.5000  train/test 0.9000/0.8000  ncc .71 1.00  depth 2  learn 1,234  1.25 s"
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_live_bar():
    text = shown(terminal=True)
    assert "\x1b[" in text
    assert "40/40" in text
    assert "train/test 0.9000/0.8000" in text
    assert "a line that stays" in text


def test_what_was_not_measured_is_not_shown():
    out = io.StringIO()
    with Display("a-run", 1, Console(file=out, width=120)) as display:
        display.update(1, 1.0, 10, 0.25, None)
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
        one.update(1, 1.0, 100, 0.5, None)
        two.update(1, 1.0, 50, 0.25, None)
        display.flush()
        display.flush()
        one.update(2, 1.0, 100, 0.5, LAST)
        two.update(2, 1.0, 50, 0.25, other)
        display.flush()
    assert out.getvalue().splitlines() == [
        "runs, seeds 3, 5: 2 epochs",
        "  seed 5: epoch 1: fc2 is fixed",
        "  1/2  loss 0.3750  learn 75  2.00 s",
        "  2/2  loss 0.3750  train/test 0.8500/0.7500  ncc .72 .95  depth 1.5  learn 75  2.00 s",
    ]
