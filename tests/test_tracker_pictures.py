"""What a tracker shows at the end of a run: the last numbers of every layer as a table, and the curves as pictures."""

import json
import math

import pytest
from run_folders import events, rows

from nclab.interfaces.registry import Registry
from nclab.run.execute import train
from nclab.run.pictures import pictures_of
from nclab.runfolder.tracker import TRACKERS, Table, Tracker, TrackerSettings, by_layer


class Noting(Tracker):
    calls: list = []  # noqa: RUF012

    def illustrate(self, epoch, table, pictures):
        Noting.calls.append((epoch, table, pictures))

    def finish(self, summary):
        Noting.calls.append("finish")


@pytest.fixture
def noting(monkeypatch):
    entry = Registry.__getitem__(TRACKERS, "none")
    monkeypatch.setitem(TRACKERS._entries, "none", type(entry)(TrackerSettings, Noting))
    monkeypatch.setattr(Noting, "illustrated", True)
    Noting.calls = []
    return Noting


def test_wandb_offline_holds_the_last_numbers_of_every_layer_and_the_curves(tiny, monkeypatch):
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    folder = train(tiny("tracker=wandb", "tracker.mode=offline", "epochs=2"))
    assert events(folder, "warning") == []
    (piece,) = (folder / "wandb").glob("offline-run-*")
    (file,) = piece.glob("files/media/table/**/last_by_layer*.table.json")
    table = json.loads(file.read_text())
    assert table["columns"][:2] == ["split", "layer"]
    found = {
        (row[0], row[1], metric): float(value)
        for row in table["data"]
        for metric, value in zip(table["columns"][2:], row[2:], strict=True)
        if value is not None and not math.isnan(value)
    }
    expected = {row[1:4]: row[4] for row in rows(folder) if row[0] == 2}
    assert found == {place: value for place, value in expected.items() if not math.isnan(value)}
    assert len(found) > 50
    pictures = sorted(piece.glob("files/media/images/curves_*.png"))
    assert [picture.name.split("_")[1] for picture in pictures] == ["test", "train"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_a_tracker_that_shows_pictures_gets_those_of_every_split_before_the_end(tiny, noting):
    folder = train(tiny("epochs=2", "metrics.every=2"))
    (epoch, table, pictures), end = noting.calls
    assert (epoch, end) == (2, "finish")
    assert set(pictures) == {"curves_train", "curves_test"}
    assert pictures.keys() == pictures_of(folder).keys()
    assert {tuple(row[:2]) for row in table.rows} == {row[1:3] for row in rows(folder)}


def test_a_picture_that_cannot_be_drawn_costs_itself_alone(tiny, noting, monkeypatch, capsys):
    def fails(folder):
        raise RuntimeError("no ink")

    monkeypatch.setattr("nclab.run.build.pictures_of", fails)
    folder = train(tiny("epochs=1"))
    assert noting.calls == ["finish"]
    assert (folder / "DONE").exists()
    assert [event["text"] for event in events(folder, "warning")] == ["tracker stopped: RuntimeError: no ink"]
    assert capsys.readouterr().err.count("no ink") == 1


def test_a_tracker_without_pictures_has_none_drawn(tiny, noting, monkeypatch):
    monkeypatch.setattr(noting, "illustrated", False)
    monkeypatch.setattr("nclab.run.build.pictures_of", lambda folder: pytest.fail("drawn for nobody"))
    folder = train(tiny("epochs=1"))
    assert events(folder, "warning") == []
    assert noting.calls == ["finish"]


@pytest.mark.fast
def test_the_table_has_a_row_a_layer_and_gaps():
    numbers = {"train/fc1/nc1": 0.5, "test/network/loss": 0.1, "train/fc1/nc2/gram": 3.0, "train_seconds": 2.0}
    assert by_layer(numbers) == Table(
        ["split", "layer", "nc1", "nc2/gram", "loss"],
        [["train", "fc1", 0.5, 3.0, None], ["test", "network", None, None, 0.1]],
    )
