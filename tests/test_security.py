"""Nothing that is read can run code or write elsewhere, and no secret is written: tried with planted ones."""

import gzip
import io
import json
import pickle
import re
import subprocess
import sys
import tarfile
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from hydra.core.global_hydra import GlobalHydra

from nclab.analysis import AnalysisError, load_runs
from nclab.config.schema import ConfigError
from nclab.config.stored import stored_config, to_yaml
from nclab.data import DatasetSettings, checksum, cifar, load_dataset, token_cache
from nclab.data.fetching import FetchError
from nclab.data.fetching import place as placing
from nclab.data.fetching.place import place_gunzipped, unpack_tar
from nclab.data.pickled import unpickle_arrays
from nclab.run.execute import train
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.runfolder.folder import RecordError, RunFolder
from nclab.system.redact import MASK, redact, redacted
from nclab.train import main
from nclab.training.observer import EpochEnd, Guarded, Observer

ROOT = Path(__file__).parents[1]
SECRET = "s3cr3t-0123456789abcdef"

# ---- what the sources may not do: rules S and TID251 of the linter

DANGERS = [
    "import pickle; pickle.load(f)",
    "import pickle; pickle.loads(f)",
    "import pickle\nclass U(pickle.Unpickler): pass",
    "import marshal; marshal.loads(f)",
    "import shelve; shelve.open(f)",
    "import joblib; joblib.load(f)",
    "import pandas as pd; pd.read_pickle(f)",
    "import torch; torch.load(f, weights_only=False)",
    "import torch; torch.hub.load(f)",
    "import numpy as np; np.load(f, allow_pickle=True)",
    "import yaml; yaml.load(f, Loader=yaml.Loader)",
    "import yaml; yaml.load(f, yaml.Loader)",
    "import yaml; yaml.unsafe_load(f)",
    "import yaml; yaml.full_load(f)",
    "import yaml; yaml.load_all(f)",
    "from omegaconf import OmegaConf; OmegaConf.load(f)",
    "eval(f)",
    "exec(f)",
    "import shutil; shutil.unpack_archive(f)",
    "import tarfile; tarfile.open(f).extractall()",
    "import os; os.system(f)",
    "import subprocess; subprocess.run(f, shell=True)",
]


def dangers(*words: str, **more) -> list[str]:
    """What the linter says of security, 'file:line:column: rule text' each."""
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", *words]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **more)
    assert found.returncode in (0, 1), found.stderr
    return [line for line in found.stdout.splitlines() if re.search(r": (S\d+|TID251) ", line)]


@pytest.mark.fast
def test_no_source_reads_what_can_run_code():
    assert dangers("src", "scripts") == []


def test_the_linter_finds_each_of_them():
    """Pins the rules in pyproject.toml: an ignore too many and a danger here goes unseen."""
    text, ends = "f = 1\n", []
    for danger in DANGERS:
        text += danger + "\n"
        ends.append(text.count("\n"))
    lines = {int(line.split(":")[1]) for line in dangers("--stdin-filename=src/nclab/planted.py", "-", input=text)}
    assert [danger for danger, end in zip(DANGERS, ends, strict=True) if end not in lines] == []


# ---- files that would run code


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.fixture
def marker(tmp_path):
    """What evil files make: it must not be there in the end. The other way round, the evil works."""
    path = tmp_path / "marker"
    pickle.loads(pickle.dumps(Evil(path)))
    assert path.exists()
    path.unlink()
    yield path
    assert not path.exists()


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle", "inside", "another"])
def test_a_malicious_checkpoint_is_refused(tiny, tmp_path, marker, form, capsys, monkeypatch):
    config = tiny("epochs=1", root=tmp_path / "out")
    config.folder.mkdir(parents=True)
    (config.folder / "config.yaml").write_text(to_yaml(config))
    file = config.folder / checkpoint.NAME
    state = {"format": checkpoint.FORMAT, "progress": Evil(marker)}
    if form == "pickle":
        file.write_bytes(pickle.dumps(Evil(marker)))
    elif form == "another":
        torch.save([1, 2], file)
    else:
        torch.save(state if form == "inside" else Evil(marker), file, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(RecordError, match=r"checkpoint\.pt .*overwrite=true starts"):
        train(config)
    with pytest.raises(RecordError, match=r"checkpoint\.pt "):
        load_trained(config.folder)
    monkeypatch.setattr(sys, "argv", ["nclab-train", f"resume={config.folder}"])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert (stop.value.code, said.count("\n")) == (1, 1), said
    assert "checkpoint.pt" in said


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "metrics.csv", "events.jsonl"])
def test_malicious_texts_in_a_run_folder_are_refused(tiny, marker, name):
    folder = train(tiny("epochs=1"))
    (folder / name).write_text(f"!!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(AnalysisError, match=re.escape(name)):
        [(run.metrics, run.summary, run.events) for run in load_runs([folder])]
    if name == "config.yaml":
        for read in (lambda: stored_config(folder / name), lambda: load_trained(folder)):
            with pytest.raises(ConfigError, match=r"config\.yaml cannot be read: .*could not determine a constructor"):
                read()
        with pytest.raises(ConfigError, match=r"config\.yaml cannot be read"):
            train(tiny(f"resume={folder}", "overwrite=true"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("published", [True, False])
def test_a_malicious_pickle_of_cifar_is_refused(tmp_path, monkeypatch, marker, name, published):
    """Whatever its checksum: one that is not the published is not opened at all."""
    kind = getattr(torchvision.datasets, cifar.TORCHVISION[name])
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    data = pickle.dumps({"data": Evil(marker), "labels": [0]})
    lists = {
        key: [[file, md5(data).hexdigest()] for file, _ in getattr(kind, key)] for key in ("train_list", "test_list")
    }
    for file in [*(file for part in lists.values() for file, _ in part), kind.meta["filename"]]:
        (folder / file).write_bytes(data)
    if published:
        for key, part in lists.items():
            monkeypatch.setattr(kind, key, part)
    message = "expected a pickle of arrays and plain values alone" if published else "expected md5"
    with pytest.raises(ValueError, match=message):
        load_dataset(DatasetSettings(name), tmp_path)


def test_only_arrays_leave_a_pickle(marker):
    assert unpickle_arrays(pickle.dumps({"a": [1, "b"]}), "file") == {"a": [1, "b"]}
    for data in (pickle.dumps(Evil(marker)), b"cos\nsystem\n.", b"", pickle.dumps([1])[:-2]):
        with pytest.raises(ValueError, match="file: expected a pickle of arrays and plain values alone"):
            unpickle_arrays(data, "file")
    with pytest.raises(ValueError, match="file: expected a dict with an array 'data', got list"):
        cifar.read_python(pickle.dumps([1]), "file")


def test_a_token_cache_holds_no_objects(tmp_path, marker):
    """Its digest is no signature: anyone can write one."""
    archive = io.BytesIO()
    np.savez(archive, tokens=np.array([Evil(marker)], dtype=object))
    token_cache.cached(tmp_path, "key", lambda: {"tokens": np.zeros(1)})
    (file,) = tmp_path.glob("*.tokens")
    file.write_bytes(token_cache._digest("key", archive.getvalue()) + archive.getvalue())
    with pytest.raises(ValueError, match="allow_pickle=False"):
        token_cache.cached(tmp_path, "key", dict)


# ---- archives that would leave their folder or fill the disk


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info, data


@pytest.mark.parametrize(
    "members",
    [
        [member("../out", data=b"x")],
        [member("a/../../out", data=b"x")],
        [member("link", tarfile.SYMTYPE, ".."), member("link/out", data=b"x")],
        [member("link", tarfile.SYMTYPE, "/etc")],
        [member("a", tarfile.LNKTYPE, "../outside")],
        [member("null", tarfile.CHRTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
    ],
    ids=["parent", "inner parent", "symlink", "absolute symlink", "hard link", "device", "pipe"],
)
def test_no_archive_leaves_its_folder(tmp_path, members):
    folder, archive = tmp_path / "in", tmp_path / "a.tgz"
    folder.mkdir()
    (tmp_path / "outside").write_text("mine")
    with tarfile.open(archive, "w:gz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(FetchError, match=r"a\.tgz: not a sound tar file"):
        unpack_tar(archive, folder)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "a.tgz", "outside"}
    assert not any(path.is_symlink() or not path.is_dir() for path in folder.rglob("*"))


def test_an_absolute_member_lands_inside(tmp_path):
    folder, archive = tmp_path / "in", tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(*(lambda m: (m[0], io.BytesIO(m[1])))(member(str(tmp_path / "out"), data=b"x")))
    unpack_tar(archive, folder)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["out"]


def test_bombs_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(placing, "MOST_BYTES", 3_000_000)
    packed = tmp_path / "bomb.gz"
    packed.write_bytes(gzip.compress(bytes(20_000_000)))
    with pytest.raises(FetchError, match=r"bomb\.gz: expected at most 3000000 bytes in it, got more"):
        place_gunzipped(packed, tmp_path / "target", "0" * 32)
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in "abcd":
            info, data = member(name, data=bytes(1_000_000))
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(FetchError, match=r"a\.tgz: expected at most 3000000 bytes in it, got 4000000"):
        unpack_tar(archive, tmp_path / "in")
    assert not (tmp_path / "target").exists()
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    monkeypatch.setattr(checksum, "LARGEST", 2 * checksum.PIECE)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(packed.read_bytes())
    with pytest.raises(ValueError, match=f"expected md5 .*, found {md5(bytes(2 * checksum.PIECE)).hexdigest()}"):
        load_dataset(DatasetSettings("mnist"), tmp_path)


# ---- secrets


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("SOME_TOKEN", f"{SECRET}-longer")
    return SECRET


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"401 for {SECRET}!", f"401 for {MASK}!"),
        (f"{SECRET}-longer", MASK),
        ("+tracker.api_key=abc", f"+tracker.api_key={MASK}"),
        ("--api-key==abc", f"--api-key=={MASK}"),
        ("{'password': 'abc', 'user': 'me'}", f"{{'password': '{MASK}', 'user': 'me'}}"),
        ("WANDB_API_KEY=abc seed=1", f"WANDB_API_KEY={MASK} seed=1"),
        ("wandb_token: abc", f"wandb_token: {MASK}"),
        ("https://me:abc@host/x", f"https://{MASK}@host/x"),
        ("proxy http://:abc@host", f"proxy http://{MASK}@host"),
        (f"https://{'t' * 30}@host", f"https://{MASK}@host"),
        ("Authorization: Bearer abcdefgh.ijk", f"Authorization: Bearer {MASK}"),
    ],
)
def test_secrets_are_masked(secret, text, masked):
    assert redact(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "metrics.memory_gib=2.0 seed=3 token=3 api_key=0.5",
        "features of the class token: block1.attn, tokens = 1 if pool",
        "unknown key 'model.heads' of model=mlp; valid: name, depth",
        "full_key: seed; object_type=dict",
        "sorted(configs, key=lambda c: c.seed)",
        "Valid keys: hydra, dataset",
        "pool=cls cls_tokens=17 tokenizer=x monkey=y",
        "see https://host/path and git@host:path",
        "digits-mlp5x400-none-e60-s0-3c733b84",
        "commit 84e997d41a7a0e6a4a0f7f1c5f5e6a7b8c9d0e1f",
    ],
)
def test_what_is_no_secret_stays(secret, monkeypatch, text):
    monkeypatch.setenv("A_KEY", "12345678901")  # a number
    monkeypatch.setenv("B_TOKEN", "digits")  # too short
    monkeypatch.setenv("PATH_OF_TOKENS", "digits-mlp5x400")  # another name
    assert redact(f"{text} 12345678901") == f"{text} 12345678901"


@pytest.mark.fast
def test_trees_are_masked_by_key_and_value(secret):
    tree = {
        "api_key": "a",
        "seed": 12345678,
        "token": 3,
        "n": None,
        "tags": ["x", SECRET],
        "in": {"auth": "b", "p": 0.5},
    }
    expected = {"api_key": MASK, "tags": ["x", MASK], "in": {"auth": MASK, "p": 0.5}}
    assert redacted(tree) == {**tree, **expected}
    assert tree["api_key"] == "a"


def test_configurations_and_names_are_as_without_secrets(tiny, secret, monkeypatch):
    with_secret = tiny()
    stored = to_yaml(with_secret)
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.delenv("SOME_TOKEN")
    assert (to_yaml(tiny()), tiny().run_name) == (stored, with_secret.run_name)


def run_main(monkeypatch, capsys, *words: str) -> tuple[int, str]:
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["nclab-train", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    return stop.value.code, said.out + said.err


@pytest.mark.parametrize(
    "words",
    [
        (f"+tracker.api_key={SECRET}",),
        ("+tracker.password=abc",),
        (f"model={SECRET}",),
        (f"--{SECRET}",),
        ("output_root=ftp://me:abc@host/x",),
        ("-m", "seed=0,1", f"tracker=wandb tracker.tags=[{SECRET}]"),
        ("debug=true", f"+tracker.api_key={SECRET}"),
        ("debug=true", "epochs=0", "experiment_name=${oc.env:WANDB_API_KEY}"),
        ("output_root=${oc.env:WANDB_API_KEY}",),
        ("model=${oc.env:WANDB_API_KEY}",),
        ("device=${oc.env:WANDB_API_KEY}",),
        ("debug=true", "device=${oc.env:WANDB_API_KEY}"),
    ],
)
def test_no_secret_is_said_or_written(secret, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    code, said = run_main(monkeypatch, capsys, *words)
    assert code == 2
    assert SECRET not in said
    assert "abc" not in said
    assert ("Traceback" in said) == ("debug=true" in words)
    assert list(tmp_path.iterdir()) == []


def test_a_bugs_traceback_holds_no_secret(secret, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError(f"cannot log in with {SECRET}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nclab.run.task.train", broken)
    code, said = run_main(monkeypatch, capsys)
    assert (code, SECRET in said) == (1, False)
    assert f"RuntimeError: cannot log in with {MASK}" in said


def test_logs_hold_no_secret(secret, tmp_path):
    class Refused(Observer):
        def epoch(self, end):
            raise RuntimeError(f"401 for key {SECRET} at https://me:abc@host")

    with RunFolder(tmp_path / "run") as out:
        out.open_logs(None)
        guarded = Guarded(Refused(), lambda epoch, reason: out.event("warning", epoch=epoch, text=reason))
        guarded.epoch(EpochEnd(3, 0.5, None, 10, 1.0, 0.0))
        out.finish({"experiment_name": SECRET, "seed": 1})
    event = json.loads((tmp_path / "run" / "events.jsonl").read_text())
    assert event["text"] == f"RuntimeError: 401 for key {MASK} at https://{MASK}@host"
    assert event["epoch"] == 3
    assert_nowhere(tmp_path)


def assert_nowhere(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if SECRET.encode() in path.read_bytes() or SECRET in path.name] == []


def test_a_wandb_run_holds_no_secret(tiny, secret, tmp_path, monkeypatch):
    """The real library, offline, started with secrets in the environment, the words and the configuration."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setattr(sys, "argv", ["nclab-train", f"+tracker.api_key={SECRET}", f"x={SECRET}"])
    config = tiny("epochs=1", "tracker=wandb", "tracker.mode=offline", "tracker.tags=[mine]")
    folder = train(config)
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert sys.argv[2] == f"x={SECRET}"
    assert_nowhere(folder)
    assert yaml.safe_load((folder / "config.yaml").read_text())["tracker"]["tags"] == ["mine"]
