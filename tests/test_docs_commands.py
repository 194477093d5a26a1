"""Every nclab-draw, nclab-runs, nclab-paper and nclab-data command of README.md and docs/ runs, in small.

They run on a few run folders as training writes them, on some of the committed ones, or on the first run of a plan.
ELSEWHERE has what needs a network, a GPU or a shell.
"""

import io
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from fake_depth_runs import write_series
from fake_runs import ADAPTIVE, BASELINE, diverge, last, write_run
from test_docs import ALL, FENCE, ROOT, code, relative, spans

from nclab.analysis import cli
from nclab.config.place import CONF
from nclab.config.plan import Plan
from nclab.data import command as data_command
from nclab.papers import command as paper_command
from nclab.papers import running
from nclab.run.execute import train
from nclab.runs import command as runs_command

COMMAND = re.compile(r"nclab-(draw|runs|paper|data)(?= |$).*")
# What is named in a sentence, without all its words.
NAMES = re.compile(r"nclab-draw \w+|nclab-paper (run|draw|judge)|nclab-runs( pack| show| COMMAND --help)?")
GENERATED = "docs/results/cpu/report/report.md"  # its commands are judged, tests/test_commands.py
EVIDENCE = ROOT / "docs" / "results" / "evidence"
MOST_RUNS = 4  # of an archive


def documented() -> dict[str, list[str]]:
    """Command -> its words, of every command that is whole."""
    found = {}
    for page in ALL:
        text = page.read_text()
        lines = [*code(text), *(span for span in spans(text) if not NAMES.fullmatch(span))]
        if relative(page) != GENERATED:
            for part in (part.strip() for line in lines for part in line.split("&&")):
                if command := COMMAND.match(part):
                    one_place = command[0].replace("outputs/first", "outputs/figure1")  # of README.md and docs/runs.md
                    words = shlex.split(one_place, comments=True)
                    found[shlex.join(words)] = words
    return found


COMMANDS = documented()


def of(*begins: str) -> pytest.MarkDecorator:
    """A case a command that begins so."""
    return pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith(begins)])


def finish(words: list[str]) -> int:
    """The exit code of a command in this process."""
    main = {
        "nclab-draw": cli.main,
        "nclab-runs": runs_command.main,
        "nclab-paper": paper_command.main,
        "nclab-data": data_command.run,
    }[words[0]]
    try:
        return main(words[1:]) or 0
    except SystemExit as stop:
        return stop.code or 0


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output root with the experiments that the pages name, and a run that diverged."""
    root = tmp_path_factory.mktemp("documented")
    for etf in (BASELINE, last(1)):
        for seed in (0, 1):
            folder = write_run(root, etf, seed, epochs=2, experiment="figure1")
            (folder / "checkpoint.pt").write_bytes(b"weights")
    write_run(root, ADAPTIVE, epochs=2, experiment="figure2", fix=[(1, "fc5")])
    write_run(root, last(1, kind="frozen"), epochs=2, experiment="controls")
    digits = {"name": "digits", "train_size": None}
    for noise in (0.0, 0.2):
        write_run(root, epochs=2, experiment="exp", dataset=digits | {"label_noise": noise})
    for file in root.glob("*/*/metrics.csv"):
        lines = [line for line in file.read_text().splitlines() if ",nc3," not in line]  # which is nan there
        more = [line.replace(",nc1,", f",{name},") for name in ("nc2_gram", "nc3") for line in lines if ",nc1," in line]
        file.write_text("\n".join([*lines, *more]) + "\n")
    diverge(root, experiment="failing")
    return root


class Yes(io.StringIO):
    """Somebody who agrees."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def here(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `outputs` in it."""
    shutil.copytree(outputs, tmp_path / "outputs")
    (tmp_path / "docs" / "results" / "evidence").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", Yes("y\n"))
    return tmp_path


def in_small(words: list[str]) -> list[str]:
    """The words, of the runs that are here; RUN, RUN2 and FOLDER... are the reader's to fill in."""
    one, two = sorted(path.name for path in Path("outputs/figure1").iterdir())[:2]
    text = shlex.join(words)
    for of_page, ours in (
        (r"/RUN2\b", f"/{two}"),
        (r"/RUN\b", f"/{one}"),
        (r"\bFOLDER\.\.\.", "outputs/figure1"),
        (r"--dataset \w+", "--dataset digits"),
        (r"--epochs \d+", "--epochs 2"),
    ):
        text = re.sub(of_page, ours, text)
    return shlex.split(text)


def named_files(words: list[str]) -> Iterator[Path]:
    """What a command was told to write."""
    for option, value in pairwise(words):
        if option in ("--out", "--png"):
            yield Path(value)


@of("nclab-draw", "nclab-runs")
def test_a_command_on_runs(name, here, monkeypatch, capsys):
    def enough(seconds: float) -> None:
        raise KeyboardInterrupt  # --watch goes on until Ctrl-C

    monkeypatch.setattr("nclab.runs.board.page.time.sleep", enough)
    words = in_small(COMMANDS[name])
    code_of_exit = finish(words)
    printed = capsys.readouterr()
    assert code_of_exit == (words == ["nclab-runs", "failed"]), printed.err  # 1: there are some
    assert printed.out
    assert all(file.stat().st_size for file in named_files(words))
    if words[0] == "nclab-draw" and "--list" not in words:
        written = [Path(line) for line in printed.out.splitlines() if line.startswith("outputs/figures/")]
        assert written
        assert all(file.stat().st_size for file in written)


def unpacked(wing: str, output: Path) -> None:
    """Some of the committed runs of a wing; of depth, which has none, others."""
    if wing == "depth":
        write_series(output)
        return
    with tarfile.open(EVIDENCE / f"{wing}.tar.xz") as archive:
        folders = set()
        for member in archive:  # one that is not read on is not unpacked
            folders.add(str(Path(member.name).parent))
            if len(folders) > MOST_RUNS:
                break
            archive.extract(member, output, filter="data")


@of("nclab-paper judge")
def test_a_wing_is_judged(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [{"WING": "transfer", "FOLDER...": "outputs/transfer"}.get(word, word) for word in COMMANDS[name]]
    unpacked(words[2], Path("outputs"))
    shutil.copy(CONF / "paper" / words[2] / "claims.yaml", "mine.yaml")
    assert finish(words) == 0, capsys.readouterr().err
    report = Path("outputs", words[2], "report")
    assert {"index.html", "report.md", "verdicts.csv", "details.csv"} <= {file.name for file in report.iterdir()}


@of("nclab-paper list", "nclab-data list")
def test_a_list_is_printed(name, capsys):
    assert finish(COMMANDS[name]) == 0
    assert capsys.readouterr().out


def planned(words: list[str]) -> tuple[Plan, list[str]]:
    """The plan that nclab-paper run reads with these words, which has their profile and parts, and these parts."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "run_wing", lambda wing, args: asked.append((wing, args)))
        assert finish(words) == 0
    (wing, args) = asked[0]
    plan = Plan(wing.conf, wing.name)
    plan.check(args.part, args.profile)
    return plan, args.part


def with_options(words: list[str], **options: str) -> list[str]:
    """A command with these values of its options in the place of its own."""
    kept = list(words)
    for name, value in options.items():
        if f"--{name}" in kept:
            del kept[kept.index(f"--{name}") :][:2]
        kept += [f"--{name}", value]
    return kept


@of("nclab-paper run")
def test_the_first_run_of_a_plan_trains(name, tmp_path, monkeypatch, capsys):
    """Its profile and parts are in the plan; the run is one of the first of them at the size smoke."""
    words, trained = COMMANDS[name], []
    plan, parts = planned(words)

    def first(configs, *_, **__):
        trained.append(train(replace(configs[0], debug="fast")))
        return []

    monkeypatch.setattr(running, "run_all", first)
    monkeypatch.setattr(running, "draw", lambda *_: [])  # of the whole plan
    part = (parts or [*plan.parts])[0]
    small = with_options(words, profile="smoke", dataset="digits", part=part, seeds="0", output=str(tmp_path))
    assert finish(small) == 0, capsys.readouterr().err
    assert (trained[0] / "summary.json").is_file()


@of("nclab-data fetch")
def test_what_is_fetched_is_a_dataset(name, monkeypatch, capsys):
    """Without its network."""
    fetched = []
    monkeypatch.setattr(data_command, "fetch", lambda one, *_: fetched.append(one) or one)
    assert finish(COMMANDS[name]) == 0, capsys.readouterr().err
    assert fetched == COMMANDS[name][2:]


ELSEWHERE = {  # how a line begins -> why it is not run here
    "nclab-train": "tests/test_docs_train.py",
    "torchrun": "likewise, in one process",
    "make": "tests/test_docs_make.py",
    "pip install": "a network",
    "source .venv/bin/activate": "a shell",
    'eval "$(nclab-train -sc install=bash)"': "a shell; tests/test_quick_commands.py",
    "export": "a shell",
    "mkdir": "what tar leaves is read in test_a_wing_is_judged",
    "tar": "likewise",
    "cp": "files of a report, which test_a_wing_is_judged finds",
    "sh gpu-bundle/install.sh": "a GPU machine; tests/test_gpu_bundle.py",
    "NCLAB_DATA=data python3 -m nclab.bench.gpu": "a GPU; tests/test_gpu_lines.py",
}


def unknown_lines(text: str) -> list[str]:
    """Commands in the code blocks of a page that no test knows."""
    blocks = (body for kind, body in FENCE.findall(text) if kind in ("", "sh", "bash"))
    lines = [line.strip() for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&") if line and not line.startswith("#")]
    return [part for part in parts if not COMMAND.match(part) and not part.startswith((*ELSEWHERE,))]


def test_every_line_is_run_or_says_where():
    assert [line for page in ALL for line in unknown_lines(page.read_text())] == []
    assert unknown_lines("```\nnclab-runs status\n# a\nconda env create && make test\n```\n") == ["conda env create"]


def test_every_command_has_a_test():
    tested = set()
    for test in (
        test_a_command_on_runs,
        test_a_wing_is_judged,
        test_a_list_is_printed,
        test_the_first_run_of_a_plan_trains,
        test_what_is_fetched_is_a_dataset,
    ):
        tested |= {*test.pytestmark[0].args[1]}
    assert tested == {*COMMANDS}
    assert len(tested) > 40
