"""Downloads from a server on 127.0.0.1, and how files are put in place."""

import gzip
from pathlib import Path

import pytest
from data_files import digest, tar_gz
from local_server import BODY, Server
from rich.progress import Progress

from nclab.data.checksum import ChecksumError
from nclab.data.fetching import FetchError
from nclab.data.fetching.download import Downloader
from nclab.data.fetching.errors import NetworkError
from nclab.data.fetching.place import place, place_gunzipped, unpack_tar

pytest_plugins = "fetch_fixtures"


@pytest.fixture
def download():
    return Downloader(Progress(disable=True))


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


def test_unpack_tar_refuses_to_leave_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(FetchError, match=r"a\.tgz: not a sound tar file"):
        unpack_tar(tar_gz(tmp_path / "a.tgz", {"../out": b"x"}), tmp_path / "in")
    assert not (tmp_path / "out").exists()
    (tmp_path / "b.tgz").write_bytes(b"no tar")
    with pytest.raises(FetchError, match=r"b\.tgz: not a sound tar file"):
        unpack_tar(tmp_path / "b.tgz", tmp_path / "in")
