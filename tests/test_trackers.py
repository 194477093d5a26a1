"""wandb mirrors a run, continues it when resumed, and never costs it."""

import json
import os
import struct
import sys
from urllib.parse import urlsplit

import pytest
import wandb
import yaml
from run_folders import events, killed_after

from nclab.config.command import arguments
from nclab.config.place import CONF
from nclab.config.schema import ConfigError, RunConfig
from nclab.config.sweep import planned
from nclab.interfaces.registry import Registry
from nclab.run.execute import train
from nclab.run.started import as_started, requested
from nclab.runfolder.tracker import TRACKERS, Tracker, TrackerSettings
from nclab.runs.command import resume_command
from nclab.system.wandb_key import has_key
from nclab.train import main


class Recorder(Tracker):
    """Keeps what it is told, across the runs of one test."""

    calls: list = []  # noqa: RUF012
    fails_at: str | None = None

    def __init__(self, settings):
        pass

    def start(self, folder, config):
        self._note("start", folder, config)

    def log(self, epoch, numbers):
        self._note("log", epoch, numbers)

    def finish(self, summary):
        self._note("finish", summary)

    def _note(self, method, *args):
        Recorder.calls.append((method, *args))
        if Recorder.fails_at == method:
            raise RuntimeError("the server is on fire")


@pytest.fixture
def recorder(monkeypatch):
    entry = Registry.__getitem__(TRACKERS, "none")
    monkeypatch.setitem(TRACKERS._entries, "none", type(entry)(TrackerSettings, Recorder))
    Recorder.calls, Recorder.fails_at = [], None
    return Recorder


@pytest.mark.fast
def test_the_tracker_sees_the_numbers_of_metrics_csv(tiny, recorder):
    folder = train(tiny("metrics.every=3"))
    assert [c[0] for c in recorder.calls] == ["start", "log", "log", "log", "finish"]
    lines = (folder / "metrics.csv").read_text().splitlines()[1:]
    logged = {(c[1], key): value for c in recorder.calls if c[0] == "log" for key, value in c[2].items()}
    assert len(lines) == len([key for key in logged if key[1] != "train_seconds"])
    for line in lines:
        epoch, split, layer, metric, value = line.split(",")
        assert repr(logged[int(epoch), f"{split}/{layer}/{metric}"]) == value
    assert recorder.calls[-1][1]["run"] == folder.name


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_a_failing_tracker_is_reported_once_and_costs_nothing(tiny, tmp_path, recorder, capsys, method):
    good = train(tiny(root=tmp_path / "good"))
    recorder.fails_at = method
    folder = train(tiny(root=tmp_path / "bad"))
    assert (folder / "metrics.csv").read_bytes() == (good / "metrics.csv").read_bytes()
    assert (folder / "DONE").exists()
    warnings = [
        e for e in map(json.loads, (folder / "events.jsonl").read_text().splitlines()) if e["event"] == "warning"
    ]
    assert len(warnings) == 1
    assert "the server is on fire" in warnings[0]["text"]
    assert capsys.readouterr().err.count("the server is on fire") == 1


def test_wandb_offline_mirrors_and_a_resumed_run_continues_it(tiny, monkeypatch):
    """The real library, offline: both pieces of an interrupted run carry one wandb id."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    config = ("tracker=wandb", "tracker.mode=offline", "epochs=4")
    killed_after(2, tiny(*config))
    folder = train(tiny(*config))
    run_id = (folder / "wandb_id").read_text()
    pieces = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(pieces) == 2
    assert all(run_id in piece.name for piece in pieces)  # two of one second end in -1
    assert all(list(piece.glob("*.wandb")) for piece in pieces)
    other = train(tiny(*config, "seed=1"))  # after one that failed in this process
    assert list((other / "wandb").glob("offline-run-*/*.wandb"))
    assert events(folder, "warning") == []


BLOCK, HEADER = 32768, struct.Struct("<IHB")  # of LevelDB's log format: checksum, length, kind of what follows
FULL, FIRST, LAST = 1, 2, 4


def records(file):
    """The records of a .wandb file: LevelDB's log format behind seven bytes of wandb's own."""
    data, at, parts = file.read_bytes(), 7, []
    assert data[:4] == b":W&B"
    while at + HEADER.size <= len(data):
        if BLOCK - at % BLOCK < HEADER.size:
            at += BLOCK - at % BLOCK  # padding
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        at += HEADER.size
        parts = [*([] if kind in (FULL, FIRST) else parts), data[at : at + length]]
        at += length
        if kind in (FULL, LAST):
            yield b"".join(parts)


def history(piece):
    """Step -> the numbers logged at it, of an offline piece; a step that is there twice fails."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = piece.glob("*.wandb")
    found = {}
    for record in map(Record.FromString, records(file)):
        if record.WhichOneof("record_type") == "history":
            step = record.history.step.num
            assert step not in found
            found[step] = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
    return found


@pytest.mark.parametrize("first", ["offline", "none"])
def test_the_piece_of_a_resumed_offline_run_holds_the_whole_history(tiny, monkeypatch, first):
    """It replaces the earlier ones when it is synced. Also of a run that was begun without a tracker."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    offline = ("tracker=wandb", "tracker.mode=offline")
    killed_after(2, tiny("epochs=4", *(offline if first == "offline" else ())))
    folder = train(tiny("epochs=4", *offline))
    pieces = sorted((folder / "wandb").glob("offline-run-*"), key=lambda piece: piece.stat().st_mtime)
    assert len(pieces) == (2 if first == "offline" else 1)
    logged = history(pieces[-1])
    assert sorted(logged) == [0, 1, 2, 3, 4]
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
    assert len(lines) > 100
    for epoch, split, layer, metric, value in lines:
        came = json.loads(logged[int(epoch)][f"{split}/{layer}/{metric}"])
        assert float(came) == float(value) or value == "nan"
    seconds = {e["epoch"]: e["train_seconds"] for e in events(folder, "epoch")}
    assert {step: json.loads(logged[step]["train_seconds"]) for step in (1, 2, 3, 4)} == seconds


def test_a_tracker_that_joins_is_told_what_was_before(tiny, recorder):
    """Each measured epoch once, in order."""
    killed_after(4, tiny("metrics.every=2"))
    first, recorder.calls[:] = [c[1:] for c in recorder.calls if c[0] == "log"], []
    train(tiny("metrics.every=2"))
    logged = [c[1:] for c in recorder.calls if c[0] == "log"]
    assert [epoch for epoch, _ in logged] == [0, 2, 4, 6]
    assert [(epoch, {k: repr(float(v)) for k, v in numbers.items()}) for epoch, numbers in logged[:3]] == [
        (epoch, {k: repr(float(v)) for k, v in numbers.items()}) for epoch, numbers in first
    ]


# What is asked for and cannot be had


@pytest.fixture
def logged_out(monkeypatch, tmp_path):
    for name in (
        "WANDB_MODE",
        "WANDB_PROJECT",
        "WANDB_ENTITY",
        "WANDB_API_KEY",
        "WANDB_IDENTITY_TOKEN_FILE",
        "WANDB_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb"))
    wandb.teardown()  # it reads its settings once a process
    yield
    wandb.teardown()


@pytest.mark.parametrize(
    "words", [("seed=0",), ("seeds=[0,1]",), ("-m", "seed=0,1"), ("-m", "seed=0,1", "hydra/launcher=local")]
)
def test_wandb_without_a_key_stops_before_anything_is_written(tiny, tmp_path, monkeypatch, logged_out, capsys, words):
    monkeypatch.setattr(
        sys, "argv", ["nclab-train", *words, "tracker=wandb", f"output_root={tmp_path}/out", "threads=1"]
    )
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "tracker=wandb has no API key: run `wandb login`, set WANDB_API_KEY, or add tracker.mode=offline (" in err
    assert not (tmp_path / "out").exists()


def test_a_missing_wandb_stops_before_anything_is_written(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"tracker=wandb: wandb cannot be imported .*pip install 'nclab\[wandb\]'"):
        train(tiny("tracker=wandb", "tracker.mode=offline"))
    assert not tiny().folder.parent.exists()


def test_a_finished_run_needs_no_tracker(tiny, logged_out):
    folder = train(tiny())
    assert train(tiny("tracker=wandb")) == folder


def test_a_key_in_the_netrc_file_will_do(tmp_path, logged_out):
    assert not has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret")
    (tmp_path / "netrc").chmod(0o600)
    assert has_key()
    public = urlsplit(wandb.Settings().base_url).netloc  # where `wandb login` writes it
    (tmp_path / "netrc").write_text(f"machine {public} login user password secret")
    assert has_key()


@pytest.mark.parametrize("server", ["wandb.example.org", "wandb.example.org:8080"])
def test_a_key_for_the_server_of_wandbs_settings_file_will_do(tmp_path, logged_out, server):
    """Of another server it will not, and asking leaves nothing that a job would inherit."""
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text(f"[default]\nbase_url = https://{server}\n")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret")
    (tmp_path / "netrc").chmod(0o600)
    before = dict(os.environ)
    assert not has_key()
    (tmp_path / "netrc").write_text(f"machine {server} login user password secret")
    assert has_key()
    assert dict(os.environ) == before


def test_a_key_in_wandbs_settings_file_will_do(tmp_path, logged_out):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text(f"[default]\napi_key = {'a1' * 20}\n")
    assert has_key()


def command(monkeypatch, *words):
    """The exit code of nclab-train."""
    monkeypatch.setattr(sys, "argv", ["nclab-train", *words])
    try:
        main()
    except SystemExit as left:
        return left.code
    return 0


@pytest.fixture
def online(tiny):
    """The folder of an interrupted run that was begun with tracker=wandb where there was a login."""
    folder = train(tiny("epochs=2"))
    (folder / "DONE").unlink()
    tracker = {"name": "wandb", "mode": "online", "project": "mine", "entity": "us", "tags": [], "timeout": 30.0}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "tracker": tracker}, sort_keys=False))
    return folder


def test_a_run_of_a_tracker_goes_on_without_a_login_as_its_error_says(monkeypatch, logged_out, online, capsys):
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    assert command(monkeypatch, f"resume={online}") == 2
    assert "or add tracker.mode=offline (upload later) or tracker=none to the command" in capsys.readouterr().err
    offline = resume_command(online)
    assert offline == f"python -m nclab.train resume={online} tracker.mode=offline"
    assert command(monkeypatch, *offline.split()[3:]) == 0
    assert list(online.glob("wandb/offline-run-*"))
    (online / "DONE").unlink()
    assert command(monkeypatch, f"resume={online}", "tracker=none") == 0


@pytest.mark.parametrize(
    ("words", "mode", "expected"),
    [
        ((), "", ("online", "mine")),
        ((), "offline", ("offline", "mine")),
        (("tracker.mode=disabled",), "offline", ("disabled", "mine")),
        (("tracker=wandb", "tracker.project=other"), "offline", ("offline", "other")),
        (("epochs=4",), "offline", ("offline", "mine")),
    ],
)
def test_keys_of_the_stored_tracker_may_be_typed_and_wandb_mode_wins_over_it(
    monkeypatch, logged_out, online, words, mode, expected
):
    monkeypatch.setenv("WANDB_MODE", mode)
    args = arguments([f"resume={online}", *words])
    (job,) = planned(args, CONF).jobs
    run = as_started(requested(job.config, job.words)[0])
    assert (run.tracker.mode, run.tracker.project, run.tracker.entity) == (*expected, "us")


def test_a_job_keeps_the_mode_that_it_was_submitted_with(monkeypatch, logged_out, online):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert as_started(RunConfig(resume=str(online))).tracker.mode == "online"


def test_keys_of_trackers_beside_several_folders(logged_out, online, tiny):
    other = train(tiny("seed=1", "tracker=wandb", "tracker.mode=disabled"))
    args = arguments(["-m", f"resume={online},{other}", "tracker.mode=offline"])
    jobs = planned(args, CONF).jobs
    assert [as_started(requested(job.config, job.words)[0]).tracker.mode for job in jobs] == ["offline"] * 2


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ((), {}, ("online", "nclab", None)),
        ((), {"WANDB_MODE": "offline", "WANDB_PROJECT": "mine", "WANDB_ENTITY": "us"}, ("offline", "mine", "us")),
        ((), {"WANDB_MODE": "dryrun"}, ("offline", "nclab", None)),
        (("tracker.mode=online", "tracker.project=typed", "tracker.entity=them"),
         {"WANDB_MODE": "offline", "WANDB_PROJECT": "mine", "WANDB_ENTITY": "us"}, ("online", "typed", "them")),
        ((), {"WANDB_MODE": "", "WANDB_PROJECT": ""}, ("online", "nclab", None)),
    ],
)  # fmt: skip
def test_the_environment_wins_over_defaults_and_keys_over_it(
    tiny, monkeypatch, logged_out, words, environment, expected
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tracker = tiny("tracker=wandb", *words).tracker
    assert (tracker.mode, tracker.project, tracker.entity) == expected


def test_a_mode_of_the_environment_that_is_none_is_named(tiny, monkeypatch, logged_out):
    monkeypatch.setenv("WANDB_MODE", "sideways")
    with pytest.raises(ConfigError, match=r"unknown tracker.mode 'sideways' \(WANDB_MODE\); valid: online"):
        tiny("tracker=wandb")
