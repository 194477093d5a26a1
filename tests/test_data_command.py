"""nclab-data: what it says, and its exit codes."""

import errno
import os
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from data_files import write_mnist

from nclab.data import command, mnist

pytest_plugins = "fetch_fixtures"


def only_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_command_for_what_ships_with_packages(tmp_path, capsys):
    assert command.run(["fetch", "digits", "mnist5k", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("ships with the packages, nothing to fetch") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "svhn"], "unknown dataset 'svhn'; valid: cifar10, .*digits"),
        (["fetch", "digits", "--source", "usb"], "invalid choice: 'usb'"),
        (["fetch"], "fetch which dataset. valid: cifar10"),
        (["get", "mnist"], "invalid choice: 'get'"),
    ],
)
def test_command_with_wrong_arguments_exits_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.run(arguments)
    assert stop.value.code == 2
    assert re.search(message, only_line(capsys))


@pytest.mark.parametrize("mnist_like", ["mnist"], indirect=True)
def test_command_goes_on_with_the_next_and_exits_1(mnist_like, cifar_tar, server, tmp_path, capsys):
    name, _ = mnist_like
    del server.files["/cifar-100-python.tar.gz"]
    root = tmp_path / "root"
    assert command.run(["fetch", "cifar100", name, "--root", str(root), "--source", "torchvision"]) == 1
    said = capsys.readouterr()
    assert re.fullmatch(r"nclab-data: cifar100: official files: http://.*: HTTP 404 Not Found\n", said.err)
    assert said.out.startswith(f"{name}: 20 train")
    assert command.run(["fetch", "cifar100", "--root", str(root), "--source", "packages"]) == 1
    assert only_line(capsys) == "nclab-data: cifar100: packages: none has it"


@pytest.mark.parametrize("mnist_like", ["mnist"], indirect=True)
def test_command_without_space_keeps_what_came(mnist_like, tmp_path, capsys):
    name, _ = mnist_like
    part = tmp_path / mnist.FOLDERS[name] / "raw" / "train-images-idx3-ubyte.gz.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")  # where every write finds the disk full
    assert command.run(["fetch", name, "--root", str(tmp_path)]) == 1
    assert re.search(f"{name}: no space left under {tmp_path}; .* resumes", only_line(capsys))
    assert part.is_symlink()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_command_without_permission(code, tmp_path, capsys, monkeypatch):
    root = tmp_path / "root"

    def refuse(path, *args, **kwargs):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)  # chmod would not bind root, who runs tests in containers
    assert command.run(["fetch", "mnist", "--root", str(root)]) == 1
    expected = f"nclab-data: mnist: no access to {root} ({os.strerror(code)}); choose another folder with --root"
    assert only_line(capsys) == expected


def test_command_where_the_root_is_a_file(tmp_path, capsys):
    (tmp_path / "root").touch()
    assert command.run(["fetch", "mnist", "--root", str(tmp_path / "root")]) == 1
    assert "root" in only_line(capsys)


def test_command_interrupted(tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "fetch", interrupt)
    assert command.run(["fetch", "mnist", "--root", str(tmp_path)]) == 130
    assert only_line(capsys) == "nclab-data: mnist: interrupted; the same command resumes"


def test_list_says_where_every_dataset_is(tmp_path, monkeypatch, capsys):
    write_mnist(tmp_path, monkeypatch)
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    for path in (tmp_path / "MNIST" / "raw").iterdir():
        (tmp_path / "FashionMNIST" / "raw" / path.name).write_bytes(b"damaged")
    assert command.run(["list", "--root", str(tmp_path)]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["digits"] == said["phrases"] == "ships with the packages"
    assert said["mnist"] == f"under {tmp_path}, checksums verified"
    assert re.fullmatch(r"damaged \(.*expected md5.*\) under .*: nclab-data fetch fashion_mnist", said["fashion_mnist"])
    assert said["cifar10"] == f"not under {tmp_path}: nclab-data fetch cifar10"
    assert said["npz"] == "files of yours: dataset=npz dataset.path=PATH"
    assert said["torchvision"] == (
        "files in the data root, or with dataset.download=true: dataset=torchvision dataset.set=SET"
    )
    assert command.run(["fetch", "npz"]) == 0
    assert capsys.readouterr().out == "npz: files of yours: dataset=npz dataset.path=PATH; nothing to fetch\n"


def test_the_entry_point_is_the_command(monkeypatch, capsys):
    (entry,) = entry_points(group="console_scripts", name="nclab-data")
    monkeypatch.setattr(sys, "argv", ["nclab-data", "fetch", "digits"])
    assert entry.load()() == 0
    assert capsys.readouterr().out == "digits: ships with the packages, nothing to fetch\n"
