"""Command lines drawn at random from the tree of keys, each executed in a folder of its own, and what is wrong with
how they end.

A command may train, or refuse. It must not print a traceback, hang, or leave anything that a run does not keep.
"""

import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nclab.bench.chaos import forks
from nclab.config.document import Key, groups, root_keys
from nclab.config.options import offer_options
from nclab.system.written import is_finished
from nclab.train import main

SMALL = {"epochs": "1", "dataset.train_size": "200", "dataset.test_size": "60", "model.width": "16", "threads": "1"}
KEPT = {
    "config.yaml",
    "metrics.csv",
    "events.jsonl",
    "summary.json",
    "checkpoint.pt",
    "checkpoint.previous.pt",
    "checkpoint.best.pt",
    "DONE",
    ".lock",
}
SHIPPED = ("dataset=digits", "dataset=mnist5k", "dataset=phrases")  # need nothing that is not here
UNFIT = ("resume", "paper", "compile")  # need what is not here, or minutes
SECONDS = 90.0  # then a command is asked to stop: training that is as long as it was asked to be
PATIENCE = 60.0  # seconds to stop in
GIB = 6  # memory of a command: models that are too large must end in one line, not end the machine
TRACEBACK = "Traceback (most recent call last)"

NUMBERS = (
    "0",
    "1",
    "2",
    "3",
    "7",
    "-1",
    "0.5",
    "1e-3",
    "1e-30",
    "1e30",
    "-0.0",
    "2147483647",
    "9" * 30,
    ".inf",
    ".nan",
)
TEXTS = ("null", "true", "''", "abc", "[]", "[1]", "[0,1]", "[a,b]", "[[1]]", "{a:1}", "{}", "ünï", "'a b'", "'~/x'")
BROKEN = (
    "[1",
    "a b",
    "~/x",
    "{",
    "'",
    "a=b=c",
    "${nothing}",
    "${oc.env:NOTHING}",
    "${",
    "\\",
    ",",
    "1,,2",
    "a:b:c",
    "$(x)",
)
ODD_WORDS = (
    "--epochs", "--help", "--info", "--resolve", "--hydra-help", "-x", "-c", "--cfg=job", "--package=a", "-cn=a",
    "--config-dir=nowhere", "--config-path=nowhere", "hydra.verbose=1", "hydra.verbose=true", "hydra.mode=MULTIRUN",
    "hydra.mode=nothing", "hydra.job.name=x", "hydra.run.dir=x", "hydra.sweep.dir=x", "hydra.nothing=1", "hydra=a",
    "hydra.sweeper.params={seed: '0,1'}", "hydra.job.env_set={A: b}", "hydra.job.chdir=true", "hydra.output_subdir=x",
    "hydra/launcher=local", "hydra/launcher=basic", "hydra/launcher=nothing", "hydra/sweeper=nothing", "paper=x",
    "hydra/job_logging=none", "experiment=demo", "experiment=nothing", "experiment=null", "experiment=depth/rn1",
    "resume=nowhere", "resume=.", "plugins=[nothing]", "plugins=json", "seeds=[0,1]", "seeds=[0,0]", "seed=0,1", "",
    "epochs", "=1", "==", "epochs=", "+epochs=1", "++epochs=1", "~epochs", "~model", "model=null", "+model=mlp",
    "model.a.b=1", "dataset@x=digits", "skip_invalid=true", "datset=mnist", "lr=0.1", "k=2", "etf.k=2", "--seed", "3",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One command line, by its seed and number."""

    seed: int
    number: int
    words: tuple[str, ...]


@dataclass
class Outcome:
    """How a command ended: exit code, or minus a signal; what it printed; and what is wrong with that."""

    case: Case
    code: int | None
    seconds: float
    out: str
    err: str
    stopped: bool = False  # was asked to, as it went on too long
    faults: list[str] = field(default_factory=list)


def tree() -> dict[str, list[Key]]:
    """Every option of every group, as GROUP=OPTION, with its keys in full; and "" with the keys outside groups."""
    offer_options()
    found = {"": root_keys()}
    for group, _, options in groups():
        for option in options:
            keys = [Key(f"{group}.{key.name}", key.kind, key.default, key.text) for key in option.keys]
            found[f"{group}={option.name}"] = keys
    return found


def draw(seed: int, number: int, keys: dict[str, list[Key]]) -> Case:
    """Overrides of a few options and keys: of half the cases with values that may fit, of the others with any values,
    misspelt keys and words of Hydra. A third of both are sweeps."""
    of = random.Random(f"{seed} {number}")
    wild = of.random() < 0.5
    options = [option for option in keys if option and (wild or option.split("=")[0] != "dataset" or option in SHIPPED)]
    chosen = {option.split("=")[0]: option for option in of.sample(options, of.choice((0, 0, 1, 1, 2, 3)))}
    words = [_misspelt(of, word) if wild and of.random() < 0.05 else word for word in chosen.values()]
    near = [key for option in ("", *chosen.values()) for key in keys[option] if wild or key.name not in UNFIT]
    anywhere = [key for option in keys.values() for key in option]
    given = {}
    for _ in range(of.choice((0, 1, 1, 2, 2, 3, 4))):
        key = of.choice(anywhere if wild and of.random() < 0.2 else near)
        given[key.name] = _value(of, key) if wild and of.random() < 0.6 else _fitting(of, key)
    words += [
        f"{_misspelt(of, name) if wild and of.random() < 0.08 else name}={value}" for name, value in given.items()
    ]
    words += [f"{name}={value}" for name, value in SMALL.items() if name not in given]
    if wild and of.random() < 0.5:
        words += of.sample(ODD_WORDS, of.choice((1, 1, 2)))
    if of.random() < 0.3:
        words.append(of.choice(("-m", "-m", "--multirun")))
        group, options = _group_of(of, options, chosen)
        words.append(of.choice(("seed=0,1", f"{group}={','.join(options)}")))
    of.shuffle(words)
    return Case(seed, number, tuple(words))


def _group_of(of: random.Random, options: list[str], chosen: dict[str, str]) -> tuple[str, list[str]]:
    """A group that is not chosen yet, and up to three of its options."""
    group = of.choice(sorted({option.split("=")[0] for option in options} - chosen.keys()))
    names = [option.split("=")[1] for option in options if option.split("=")[0] == group]
    return group, of.sample(names, min(len(names), of.choice((1, 2, 2, 3))))


def _fitting(of: random.Random, key: Key) -> str:
    """A value of the key's kind, often its default."""
    if "bool" in key.kind:
        return of.choice(("true", "false"))
    if " | " in key.text and "str" in key.kind:
        named = [words.split()[-1 if n == 0 else 0] for n, words in enumerate(key.text.split(" | "))]
        return of.choice([key.default, *named])
    try:
        number = float(key.default)
    except ValueError:
        return of.choice(("3", key.default)) if "int" in key.kind and "list" not in key.kind else key.default
    return of.choice(
        (key.default, f"{2 * number:g}", "1", "2") if "int" in key.kind else (key.default, f"{number / 2:g}")
    )


def _value(of: random.Random, key: Key) -> str:
    """Any value, half of them of the key's kind."""
    if of.random() < 0.2:
        return of.choice(BROKEN)
    if of.random() < 0.5:
        return of.choice(NUMBERS + TEXTS)
    numbers = [of.choice(NUMBERS[:8]) for _ in range(of.choice((1, 2)))]
    return f"[{','.join(numbers)}]" if "list" in key.kind else numbers[0]


def _misspelt(of: random.Random, word: str) -> str:
    """The word without one of its letters, or with two of them exchanged, or without its group."""
    at = of.randrange(max(1, len(word) - 1))
    return of.choice(
        (word[:at] + word[at + 1 :], word[:at] + word[at : at + 2][::-1] + word[at + 2 :], word.split(".")[-1])
    )


def run(case: Case, root: Path, command: Callable[[], None] = main) -> Outcome:
    """Execute the case in an empty folder below `root`; faults are what must not be."""
    place = root / f"{case.number:05d}"
    work, scratch = place / "work", place / "scratch"
    for folder in (work, scratch):
        folder.mkdir(parents=True)
    began = time.monotonic()
    process = forks().Process(target=_execute, args=(case.words, place, command))
    process.start()
    process.join(SECONDS)
    stopped = process.exitcode is None
    if stopped:
        os.kill(process.pid, signal.SIGTERM)
        process.join(PATIENCE)
    hung = process.exitcode is None
    left = _session(process.pid)
    for number in left:
        os.kill(number, signal.SIGKILL)
    process.join()
    out, err = ((place / name).read_text(errors="replace") for name in ("out", "err"))
    outcome = Outcome(case, None if hung else process.exitcode, time.monotonic() - began, out, err, stopped)
    outcome.faults = [*_wrong_end(outcome), *_wrong_files(outcome, work, scratch)]
    if not hung and left:
        outcome.faults.append(f"processes left: {len(left)}")
    return outcome


def _execute(words: tuple[str, ...], place: Path, command: Callable[[], None]) -> None:
    os.setsid()  # what it starts can be told by the session
    for number, name in ((1, "out"), (2, "err")):
        with (place / name).open("wb") as file:
            os.dup2(file.fileno(), number)
    resource.setrlimit(resource.RLIMIT_DATA, (GIB << 30, GIB << 30))
    os.chdir(place / "work")
    os.environ |= {"HOME": str(place / "work"), "TMPDIR": str(place / "scratch")}
    sys.argv = ["nclab-train", *words]
    command()


def _session(leader: int) -> list[int]:
    """The processes of the session that still live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # ended in the meantime
            continue
        if int(session) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def _wrong_end(outcome: Outcome) -> list[str]:
    """Faults of the exit code and of what was printed."""
    faults = []
    code, err = outcome.code, outcome.err
    if TRACEBACK in outcome.out + err and "debug=true" not in outcome.case.words:
        faults.append("a traceback")
    if code is None:
        return [*faults, "hangs"]
    wanted = (0, 1, 2, 128 + signal.SIGTERM) if outcome.stopped else (0, 1, 2)
    if code not in wanted:
        faults.append(f"exit code {code}")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    others = [line for line in err.splitlines() if line and not line.startswith(("error: ", "warning: "))]
    if "debug=true" not in outcome.case.words:
        if code in (1, 2) and not errors:
            faults.append("ends without a word")
        if code == 2 and len(errors) > 1:
            faults.append(f"{len(errors)} errors instead of one")
        if others:
            faults.append(f"says on stderr: {others[0]}")
    if code == 0 and errors:
        faults.append("exit code 0 in spite of an error")
    return faults


def _wrong_files(outcome: Outcome, work: Path, scratch: Path) -> list[str]:
    """Faults of what was left: nothing by a refused command, run folders by others, nothing elsewhere."""
    files = [path for path in work.rglob("*") if not path.is_dir()]
    if outcome.code == 2 and [*work.iterdir()]:
        return [f"refused, but left {sorted(str(path.relative_to(work)) for path in work.rglob('*'))[:3]}"]
    faults = [f"left {path.relative_to(work)}" for path in files if path.name not in KEPT]
    faults += [f"left a temporary {path.name}" for path in scratch.rglob("*") if not path.is_dir()]
    if outcome.code == 0:
        runs = {path.parent for path in files}
        faults += [f"no DONE in {run.relative_to(work)}" for run in sorted(runs) if not is_finished(run)]
    return faults
