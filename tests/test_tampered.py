"""Run folders that someone edited, or of which something is gone: what is mended, and what is refused in one line."""

import pytest
import torch
import yaml
from run_folders import assert_same_run
from test_resume import killed_after

from nclab.analysis import AnalysisError, load_runs
from nclab.config.checks import ConfigError
from nclab.config.stored import stored_run, to_yaml
from nclab.run.execute import train
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.runfolder.folder import RecordError

SECRET = "s3cr3t-0123456789abcdef"


def test_a_configuration_that_is_gone_is_written_again(tiny, tmp_path):
    folder = killed_after(3, tiny())
    stored = (folder / "config.yaml").read_text()
    (folder / "config.yaml").unlink()
    train(tiny())
    assert (folder / "config.yaml").read_text() == stored
    assert "config.yaml was gone" in (folder / "events.jsonl").read_text()
    assert_same_run(folder, train(tiny(root=tmp_path / "whole")))
    load_trained(folder)


@pytest.mark.parametrize("value", ["p${oc.env:HOME}", "${seed}", "a\\${b}", "\\\\${x}", "${", "$x {y}"])
def test_a_stored_configuration_is_read_literally(tiny, tmp_path, value):
    folder = tmp_path / "run"
    folder.mkdir()
    config = tiny()
    config.data_root = value
    (folder / "config.yaml").write_text(to_yaml(config))
    assert stored_run(folder / "config.yaml").data_root == value
    tree = yaml.safe_load(to_yaml(config)) | {"epochs": value}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=r"config\.yaml: epochs: .*expected int"):
        stored_run(folder / "config.yaml")


@pytest.mark.parametrize(("key", "value"), [("lr", 0.5), ("momentum", 0.0)])
def test_a_configuration_changed_since_the_run_began_is_seen(tiny, key, value):
    folder = killed_after(3, tiny())
    file = folder / "config.yaml"
    tree = yaml.safe_load(file.read_text())
    tree["optimizer"][key] = value
    file.write_text(yaml.safe_dump(tree))
    said = r"config\.yaml was changed since its run began: expected the configuration with the hash [0-9a-f]{8}"
    with pytest.raises(AnalysisError, match=said):
        load_runs([folder], finished_only=False)
    with pytest.raises(ConfigError, match=said):
        train(tiny(f"resume={folder}"))
    with pytest.raises(ConfigError, match=said):
        train(tiny())
    (other,) = load_runs([folder.rename(folder.parent / "tried")], finished_only=False)
    assert other.settings[f"optimizer.{key}"] == value


def test_a_machine_key_may_change(tiny):
    folder = killed_after(3, tiny())
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("checkpoint_seconds: 0", "checkpoint_seconds: 5"))
    assert load_runs([train(tiny(f"resume={folder}"))])


@pytest.mark.parametrize("key", ["project", "entity", "tags", "mode"])
def test_no_tracker_key_holds_a_secret(tiny, monkeypatch, key):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    inside = "x${oc.env:WANDB_API_KEY}"
    word = f"tracker.{key}=[{inside}]" if key == "tags" else f"tracker.{key}={inside}"
    with pytest.raises(ConfigError) as error:
        tiny("tracker=wandb", *([] if key == "mode" else ["tracker.mode=offline"]), word)
    assert SECRET not in str(error.value) or key == "mode"
    if key != "mode":
        assert f"tracker.{key} must hold no secret" in str(error.value)


def test_a_checkpoint_that_cannot_be_read_is_refused_in_our_own_words(tiny):
    folder = killed_after(3, tiny())
    (folder / checkpoint.PREVIOUS).unlink()
    torch.save({"format": 1, "x": object}, folder / checkpoint.NAME)
    with pytest.raises(RecordError) as error:
        train(tiny())
    said = str(error.value)
    assert "it holds more than tensors and plain values" in said
    assert "overwrite=true starts the run again" in said
    assert not any(word in said for word in ("weights_only", "Weights only", "trust", "\x1b"))
    (folder / checkpoint.NAME).write_bytes(b"no checkpoint at all")
    with pytest.raises(RecordError, match=r"cannot be read \(torch\.save has not written it"):
        train(tiny())


@pytest.mark.parametrize("name", ["DONE", "metrics.csv", "events.jsonl", "checkpoint.pt", "config.yaml"])
def test_a_folder_in_the_place_of_a_file_is_named(tiny, name):
    folder = killed_after(3, tiny())
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    before = sorted(path.name for path in folder.iterdir())
    said = {"config.yaml": "cannot be read: expected the configuration of a run, got .*Is a directory"}.get(
        name, "is a folder: expected the file that a run writes; move it away"
    )
    with pytest.raises((RecordError, ConfigError), match=rf"{name} {said}"):
        train(tiny())
    assert sorted(path.name for path in folder.iterdir()) == before
