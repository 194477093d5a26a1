"""The command lines of `make fuzz`: a few of them, and that every fault is found."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nclab.bench import fuzz
from nclab.bench.fuzz import Case, draw, run, tree
from nclab.config.document import Key


@pytest.mark.parametrize("number", range(0, 80, 10))
def test_a_command_line_drawn_at_random_ends_as_it_may(tmp_path, number):
    case = draw(1, number, tree())
    outcome = run(case, tmp_path)
    assert not outcome.faults, (case.words, outcome.out[-2000:], outcome.err[-2000:])


def test_a_run_that_fits_is_trained_and_a_wrong_one_refused(tmp_path):
    """So that "no fault" is not what a command says that never starts."""
    small = tuple(f"{key}={value}" for key, value in fuzz.SMALL.items())
    trained, refused = (run(Case(0, n, (*small, word)), tmp_path) for n, word in enumerate(("seed=3", "seed=x")))
    assert (trained.code, trained.faults, refused.code, refused.faults) == (0, [], 2, [])
    assert len([*tmp_path.glob("00000/work/outputs/main/*/DONE")]) == 1


def test_cases_are_those_of_their_seed_and_number_and_reach_every_group_and_key():
    keys = tree()
    assert draw(0, 5, keys) == draw(0, 5, keys)
    words = [word for number in range(12000) for word in draw(0, number, keys).words]
    drawn = {word.split("=")[0] for word in words}
    assert {option.split("=")[0] for option in keys if option} <= drawn
    assert {key.name for option in keys.values() for key in option} <= drawn
    assert {*fuzz.ODD_WORDS} <= {*words}


def test_values_that_fit_are_of_the_kinds_that_a_key_names():
    key = Key("precision", "str", "float32", "of the steps: float32 | bf16 (autocast); always")
    of = random.Random(0)
    assert {fuzz._fitting(of, key) for _ in range(50)} == {"float32", "bf16"}


def says_a_traceback():
    raise ZeroDivisionError


def ends_in_silence():
    sys.exit(2)


def refuses_twice():
    print("error: a\nerror: b", file=sys.stderr)
    sys.exit(2)


def ends_well_with_an_error():
    print("error: a", file=sys.stderr)


def has_another_code():
    print("error: a", file=sys.stderr)
    sys.exit(3)


def chats():
    print("a library's chatter", file=sys.stderr)


def refuses_and_leaves_a_folder():
    Path("outputs").mkdir()
    refuses()


def refuses():
    print("error: a", file=sys.stderr)
    sys.exit(2)


def leaves_a_part():
    Path("run").mkdir()
    Path("run/DONE").touch()
    Path("run/checkpoint.pt.part").touch()


def leaves_no_done():
    Path("run").mkdir()
    Path("run/config.yaml").touch()


def leaves_a_temporary():
    (Path(os.environ["TMPDIR"]) / "x").touch()


def leaves_a_process():
    subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def hangs():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def trains_for_long():
    time.sleep(60)


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (says_a_traceback, "a traceback"),
        (ends_in_silence, "ends without a word"),
        (refuses_twice, "2 errors instead of one"),
        (ends_well_with_an_error, "exit code 0 in spite of an error"),
        (has_another_code, "exit code 3"),
        (chats, "says on stderr: a library's chatter"),
        (refuses_and_leaves_a_folder, "refused, but left ['outputs']"),
        (leaves_a_part, "left run/checkpoint.pt.part"),
        (leaves_no_done, "no DONE in run"),
        (leaves_a_temporary, "left a temporary x"),
        (leaves_a_process, "processes left: 1"),
        (refuses, None),
    ],
)
def test_every_fault_is_found(tmp_path, command, fault):
    faults = run(Case(0, 0, ()), tmp_path, command).faults
    assert faults == [] if fault is None else fault in faults


@pytest.mark.parametrize(("command", "faults"), [(hangs, ["hangs"]), (trains_for_long, ["exit code -15"])])
def test_a_command_that_goes_on_is_asked_to_stop_and_ended(tmp_path, monkeypatch, command, faults):
    monkeypatch.setattr(fuzz, "SECONDS", 1.0)
    monkeypatch.setattr(fuzz, "PATIENCE", 1.0)
    assert run(Case(0, 0, ()), tmp_path, command).faults == faults
