"""tracker=tensorboard mirrors metrics.csv, also of a run that goes on; tracker=several tells every tracker."""

import re
import sys
from dataclasses import dataclass

import pytest
from run_folders import events, killed_after, rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nclab.config.command import arguments
from nclab.config.place import CONF
from nclab.config.schema import ConfigError
from nclab.config.sweep import planned
from nclab.interfaces.registry import Entry
from nclab.run.execute import train
from nclab.run.started import as_started, requested
from nclab.runfolder.tracker import TRACKERS, Tracker, TrackerSettings
from nclab.runfolder.trackers import wandb as wandb_module
from nclab.runs import command as runs_command
from nclab.system.atomic import remove


def mirrored(folder):
    """(split/layer/metric, epoch) -> value, as TensorBoard reads it; a pair that is there twice fails."""
    told = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    found = {}
    for tag in told.Tags()["scalars"]:
        for event in told.Scalars(tag):
            assert (tag, event.step) not in found
            found[tag, event.step] = event.value
    return found


def test_tensorboard_shows_the_numbers_of_metrics_csv_once_also_of_a_resumed_run(tiny):
    words = ("tracker=tensorboard", "epochs=3")
    killed_after(1, tiny(*words))
    folder = train(tiny(*words))
    found = {key: value for key, value in mirrored(folder).items() if key[0] != "train_seconds"}
    logged = {(f"{split}/{layer}/{name}", epoch): value for epoch, split, layer, name, value in rows(folder)}
    assert found.keys() == logged.keys()
    assert all(value == pytest.approx(logged[key], rel=1e-6, nan_ok=True) for key, value in found.items())
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert events(folder, "warning") == []


def test_the_tracker_is_no_part_of_a_run_and_overwrite_removes_its_files(tiny):
    assert tiny("tracker=tensorboard").run_name == tiny().run_name
    folder = train(tiny("tracker=tensorboard", "epochs=1"))
    assert (folder / "tensorboard").is_dir()
    train(tiny("epochs=1", "overwrite=true"))
    assert not (folder / "tensorboard").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_place_of_its_folder_is_removed_and_not_followed(tiny, tmp_path, there):
    elsewhere = tmp_path / "elsewhere"
    if there:
        elsewhere.mkdir()
        (elsewhere / "mine").write_text("mine")
    words = ("tracker=tensorboard", "epochs=2")
    place = killed_after(1, tiny(*words)) / "tensorboard"
    remove(place)
    place.symlink_to(elsewhere)
    folder = train(tiny(*words))
    assert not place.is_symlink()
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert [path.name for path in elsewhere.glob("*")] == (["mine"] if there else [])
    assert events(folder, "warning") == []


def test_without_its_package_the_command_stops_in_one_line(tiny, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    with pytest.raises(
        ConfigError, match=r"tracker=tensorboard: .*pip install 'nclab\[tensorboard\]', .*; or add tracker="
    ):
        train(tiny("tracker=tensorboard"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def noted(monkeypatch):
    """A tracker `broken` that fails at its first epoch and one `noting` that keeps what it is told."""

    @dataclass
    class Settings(TrackerSettings):
        name: str = "noting"
        word: str = "a"

    class Noting(Tracker):
        def log(self, epoch, numbers):
            kept.append((self.settings.word, epoch))

    class Broken(Tracker):
        def log(self, epoch, numbers):
            raise RuntimeError("out of paper")

    kept = []
    TRACKERS.names()
    monkeypatch.setitem(TRACKERS._entries, "noting", Entry(Settings, Noting))
    monkeypatch.setitem(TRACKERS._entries, "broken", Entry(TrackerSettings, Broken))
    return kept


def test_several_trackers_are_told_and_one_that_fails_costs_no_other(tiny, noted, capsys):
    words = ("tracker=several", "tracker.trackers=[broken,noting]", "tracker.settings={noting:{word:b}}", "epochs=2")
    folder = train(tiny(*words))
    assert noted == [("b", 0), ("b", 1), ("b", 2)]
    (warning,) = events(folder, "warning")
    assert "out of paper" in warning["text"]
    assert capsys.readouterr().err.count("out of paper") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["tracker.trackers=[noting,wand]"],
            "unknown tracker.trackers 'wand'; did you mean wandb? valid: broken, noting",
        ),
        (["tracker.trackers=[noting]"], "tracker.trackers must be two or more different ones, got ['noting']"),
        (["tracker.trackers=[noting,several]"], "unknown tracker.trackers 'several'"),
        (["tracker.settings={none:{a:1}}"], "unknown tracker.settings 'none'"),
        (["tracker.settings={noting:{wrod:1}}"], "unknown tracker.settings.noting 'wrod'; did you mean word?"),
        (["tracker.settings={noting:1}"], "tracker.settings.noting must be keys (word); got 1"),
        (
            ["tracker.trackers=[noting,wandb]", "tracker.settings={wandb:{mode:sideways}}"],
            "unknown tracker.settings.wandb.mode 'sideways'",
        ),
        *(
            (
                ["tracker.trackers=[noting,wandb]", f"tracker.settings={{wandb:{{{typed}}}}}"],
                f"tracker.settings.wandb.{said}",
            )
            for typed, said in (
                ("timeout:abc", "timeout: expected float, got abc"),
                ("timeout:-1", "timeout must be above 0 seconds and finite, got -1.0"),
                ("project:true", "project: expected str | None, got True"),
                ("project:[a]", "project: expected str | None, got ['a']"),
                ("tags:x", "tags: expected list[str], got x"),
                ("tags:[[x]]", "tags: expected list[str], got [['x']]"),
                ("timeout:true", "timeout: expected float, got True"),
            )
        ),
    ],
)
def test_wrong_trackers_are_refused_in_one_line(tiny, noted, words, expected):
    base = ("tracker=several", "tracker.trackers=[noting,broken]")
    with pytest.raises(ConfigError, match=re.escape(expected)) as raised:
        tiny(*base, *words)
    assert "\n" not in str(raised.value)


def test_values_of_several_trackers_have_the_types_of_their_keys(tiny, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    given = "tracker.settings={wandb:{project:5,timeout:7,tags:[1,'a$b']}}"
    keys = tiny("tracker=several", given).tracker.each()["wandb"]
    assert (keys.project, keys.timeout, keys.tags, keys.mode) == ("5", 7.0, ["1", "a$b"], "offline")
    assert type(keys.timeout) is float


@pytest.fixture
def with_wandb(tiny, monkeypatch):
    """The folder of an interrupted run that was begun with tracker=several where there was a login; there is none."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb_module, "has_key", lambda: False)
    monkeypatch.setattr(runs_command, "has_key", lambda: False)
    words = ("tracker=several", "tracker.settings={wandb:{mode:disabled,project:mine}}")
    folder = train(tiny(*words, "epochs=1"))
    (folder / "DONE").unlink()
    file = folder / "config.yaml"
    text = file.read_text()
    assert "      mode: disabled\n" in text
    file.write_text(text.replace("      mode: disabled\n", "      mode: online\n"))
    return folder


def test_without_a_key_the_error_names_the_key_of_several(tiny, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb_module, "has_key", lambda: False)
    expected = "or add tracker.settings={wandb:{mode:offline}} (upload later) or tracker=none to the command"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        train(tiny("tracker=several"))
    tiny("tracker=several", "tracker.settings={wandb:{mode:offline}}")  # it is one that can be given


def test_the_command_that_resumes_a_run_of_several_trackers_asks_for_no_login(with_wandb, monkeypatch):
    command = runs_command.resume_command(with_wandb)
    assert command == f"WANDB_MODE=offline python -m nclab.train resume={with_wandb}"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert runs_command.resume_command(with_wandb) == f"python -m nclab.train resume={with_wandb}"
    (job,) = planned(arguments([f"resume={with_wandb}"]), CONF).jobs
    keys = as_started(requested(job.config, job.words)[0]).tracker.each()["wandb"]
    assert (keys.mode, keys.project) == ("offline", "mine")


def test_the_command_that_resumes_it_asks_for_no_package_that_is_not_here(with_wandb, monkeypatch):
    def absent():
        raise ImportError("wandb")

    monkeypatch.setattr(runs_command, "has_key", absent)
    assert runs_command.resume_command(with_wandb) == f"python -m nclab.train resume={with_wandb} tracker=none"


def test_a_key_within_the_settings_is_refused_beside_resume_in_one_line(with_wandb):
    args = arguments([f"resume={with_wandb}", "++tracker.settings.wandb.mode=offline"])
    (job,) = planned(args, CONF).jobs
    with pytest.raises(
        ConfigError, match=r"tracker\.settings\.wandb\.mode: expected whole keys of the tracker, such as "
    ):
        as_started(requested(job.config, job.words)[0])
