"""Fixtures of the tests that fetch: a local server, with made-up official files of MNIST and CIFAR on it."""

import gzip
import threading

import pytest
import torchvision
from data_files import cifar_content, digest, mnist_content, tar_gz
from local_server import BODY, Server

from nclab.data import cifar, mnist


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


@pytest.fixture(params=["mnist", "fashion_mnist"])
def mnist_like(request, server, monkeypatch):
    """A made-up MNIST whose mirrors are one that has nothing and the local server: name, raw files."""
    name, raw = request.param, mnist_content()
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


@pytest.fixture
def cifar_tar(server, monkeypatch, tmp_path):
    """Made-up official archives of CIFAR-10 and -100 on the local server."""
    for name in ("cifar10", "cifar100"):
        kind = getattr(torchvision.datasets, cifar.TORCHVISION[name])
        files, _ = cifar_content(name, monkeypatch)
        archive = tar_gz(tmp_path / "archive", {f"{kind.base_folder}/{f}": data for f, data in files.items()})
        server.files[f"/{kind.filename}"] = archive.read_bytes()
        monkeypatch.setattr(kind, "url", f"{server.url}/{kind.filename}")
        monkeypatch.setattr(kind, "tgz_md5", digest(archive.read_bytes()))
