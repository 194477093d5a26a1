"""Every nclab-train command of README.md and docs/ trains, in small: two batches, one epoch, embedded data."""

import json
import shlex

import pytest
from test_docs import ALL, ROOT, commands, plan_of, relative

from nclab.run.execute import train

EMBEDDED = "dataset=digits"  # in the place of datasets that are downloaded
DOWNLOADED = ("dataset=cifar10", "dataset=mnist", "experiment=simplex_etf/figure1", "experiment=simplex_etf/controls")
ELSEWHERE = ("hydra/sweeper=optuna", "plugins=[my_module]", "tracker=")  # extras, a network, the reader's own file
SHOWN = ("--help", "--cfg", "-sc", "--shell-completion")  # nothing is trained


def trained() -> dict[str, list[str]]:
    """Page and command -> its words, those that train here."""
    found = {}
    for page in ALL:
        for words in commands(page.read_text()):
            if words and not any(word.startswith((*ELSEWHERE, *SHOWN)) for word in words):
                found[f"{relative(page)}: {shlex.join(words)}"] = words
    return found


COMMANDS = trained()


def in_small(words: list[str]) -> list[str]:
    """The words of a command, so that its first run takes less than a second on any machine."""
    kept = [word for word in words if not word.startswith(("hydra/launcher", "hydra.launcher", "device=", "debug="))]
    return [*kept, *([EMBEDDED] if {*DOWNLOADED} & {*words} else []), "debug=fast", "threads=1", "print_config=false"]


@pytest.mark.parametrize("command", COMMANDS, ids=COMMANDS)
def test_a_command_of_a_page_trains(command, own_registries, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "tests" / "extensions")
    monkeypatch.chdir(tmp_path)
    folder = train(plan_of(in_small(COMMANDS[command])).jobs[0].config)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["debug"]["mode"] == "fast"
    assert folder.resolve().is_relative_to(tmp_path)


def test_most_commands_are_trained():
    assert len(COMMANDS) >= 24
