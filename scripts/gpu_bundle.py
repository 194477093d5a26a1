"""One folder with what a GPU machine without internet lacks: wheels, data, and the script that installs them.

    python scripts/gpu_bundle.py [--out build/gpu-bundle] [--have torch torchvision numpy] [--python 3.12]

The machine has the packages of `--have` and what those need (x86-64, Linux); all else that nclab, its tracker wandb and
the device tests need comes as wheels of the pinned versions, checked against the hashes of requirements.lock. Data that
are under the data root go along, cut into pieces; what is missing is said. No file is larger than PIECE.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nclab.data import data_root
from nclab.data.cifar import BIN_FOLDER
from nclab.data.mnist import FOLDERS
from nclab.data.reacher import FILE

ROOT = Path(__file__).parents[1]
PIECE = 60 * 2**20  # bytes
WANTED = ("nclab[wandb]", "pytest")
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (5, 12, 17, 24, 27, 28)] + ["manylinux2014_x86_64"]
DATA = {
    **FOLDERS,
    "cifar10": BIN_FOLDER,
    "reacher": str(Path(FILE).parent),
}  # dataset -> its folder under the data root
INSTALL = """#!/bin/sh
# Installs from this folder, without internet, what a GPU machine lacks: sh install.sh [PYTHON [FOLDER OF THE DATA]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${1:-python3}
data=${2:-data}
(cd "$here" && sha256sum --quiet --check SHA256SUMS)
"$python" -m pip install --quiet --no-index --find-links "$here/wheels" WANTED
mkdir -p "$data"
for first in "$here"/data/*.00; do
    [ -e "$first" ] || continue
    cat "${first%.00}".?? | tar -xzf - -C "$data"
done
echo "installed for $python; data in $data"
"""


def needs(wanted: list[str], python: str) -> set[str]:
    """Names of all packages that these requirements need on a Linux machine with this Python, themselves included, by
    what the installed packages say of themselves. Raises ValueError for one that is not installed here."""
    about = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    about |= {"platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix"}
    found: dict[str, set[str]] = {}  # name -> extras that were followed
    waiting = [Requirement(text) for text in wanted]
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), requirement.extras | {""}
        if not (new := extras - found.get(name, set())):
            continue
        found.setdefault(name, set()).update(new)
        try:
            own = requires(name) or []
        except PackageNotFoundError:
            raise ValueError(f"expected packages that are installed here, got {name}") from None
        for text in own:
            other = Requirement(text)
            if other.marker is None or any(other.marker.evaluate({**about, "extra": extra}) for extra in new):
                waiting.append(other)
    return set(found)


def pinned(lock: str, names: set[str], python: str) -> list[str]:
    """The entries of a lock file, hashes included, for these packages. Raises ValueError where it has none of one."""
    about = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    found = {}
    for entry in re.findall(r"^[a-zA-Z0-9][^\\\n]*(?:\\\n +--hash[^\\\n]*)+", lock, re.MULTILINE):
        head, *hashes = [line.strip(" \\") for line in entry.splitlines()]
        requirement, _, marker = head.partition(" ; ")
        name = canonicalize_name(requirement.partition("==")[0])
        if name in names and (not marker or Marker(marker).evaluate(about)):
            found[name] = " ".join([requirement, *hashes])
    if absent := sorted(names - found.keys()):
        raise ValueError(f"expected an entry in requirements.lock of every package, got none of {', '.join(absent)}")
    return [found[name] for name in sorted(found)]


def download(uv: str, requirements: list[str], wheels: Path, python: str) -> None:
    """Wheels for the machine; what is published as source alone is built here, which pure Python allows."""
    listed = wheels.parent / "requirements.txt"
    listed.write_text("\n".join(requirements) + "\n")
    where = [word for platform in PLATFORMS for word in ("--platform", platform)]
    version = ["--python-version", python, "--implementation", "cp", "--abi", f"cp{python.replace('.', '')}"]
    words = ["--quiet", "--no-deps", "--require-hashes", "--dest", str(wheels), "--requirement", str(listed)]
    subprocess.run(
        [uv, "tool", "run", "pip", "download", *words, *where, *version, "--abi", "abi3", "--abi", "none"], check=True
    )
    for source in [*wheels.glob("*.tar.gz"), *wheels.glob("*.zip")]:
        build_wheel(uv, source, wheels)
        source.unlink()
    if foreign := [file.name for file in wheels.glob("*.whl") if not fits(file.name, python)]:
        raise ValueError(f"expected wheels for Python {python} on x86-64 Linux, got {', '.join(foreign)}")


def build_wheel(uv: str, source: Path, wheels: Path) -> None:
    """By the build tools that the environment of this process has."""
    words = ["--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(wheels), str(source)]
    subprocess.run([uv, "build", "--quiet", *words], check=True)
    (wheels / ".gitignore").unlink(missing_ok=True)


def fits(name: str, python: str) -> bool:
    """Whether a wheel of this file name runs there, by its tags."""
    version, abi, platform = name.removesuffix(".whl").split("-")[-3:]
    tag = f"cp{python.replace('.', '')}"
    pure = "py3" in version.split(".") and abi == "none"
    return (pure or tag in version or "abi3" in abi) and (platform == "any" or "x86_64" in platform)


def pieces(folder: Path, archive: Path, size: int = PIECE) -> Iterator[Path]:
    """The folder as a compressed archive, cut into files ARCHIVE.00, ARCHIVE.01, ... of at most so many bytes. In the
    place of links go the files to which they lead."""
    with tarfile.open(archive, "w:gz", compresslevel=6, dereference=True) as tar:
        tar.add(folder, folder.name)
    with archive.open("rb") as whole:
        for number in range(100):
            if not (data := whole.read(size)):
                break
            piece = archive.with_name(f"{archive.name}.{number:02}")
            piece.write_bytes(data)
            yield piece
        else:
            raise ValueError(f"{folder} needs more than 100 pieces of {size} bytes")
    archive.unlink()


def contents(bundle: Path) -> str:
    """The files with their sizes in MiB, as a table, the largest first, and the sum."""
    files = sorted((f for f in bundle.rglob("*") if f.is_file()), key=lambda f: -f.stat().st_size)
    rows = [f"| {f.relative_to(bundle)} | {f.stat().st_size / 2**20:.2f} |" for f in files]
    whole = sum(f.stat().st_size for f in files) / 2**20
    return "\n".join(["| file | MiB |", "|---|---:|", *rows, f"| all of {len(files)} files | {whole:.1f} |"]) + "\n"


def finish(bundle: Path) -> None:
    """The script, the sums by which it checks all files, and the list of sizes. Raises ValueError for a file too large
    for a piece."""
    script = bundle / "install.sh"
    script.write_text(INSTALL.replace("WANTED", " ".join(f"'{wanted}'" for wanted in WANTED)))
    script.chmod(0o755)
    files = sorted(f for f in bundle.rglob("*") if f.is_file())
    if large := [f.name for f in files if f.stat().st_size > PIECE]:
        raise ValueError(f"expected files of at most {PIECE} bytes, got larger: {', '.join(large)}")
    sums = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(bundle)}" for f in files]
    (bundle / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    (bundle / "CONTENTS.md").write_text(contents(bundle))


def pack_data(names: list[str], root: Path, folder: Path) -> list[str]:
    """Cut the data that are there into pieces; returns what is missing, each with the command that fetches it."""
    folder.mkdir()
    missing = []
    for name in names:
        if not (own := root / DATA[name]).is_dir():
            missing.append(f"{name} is not under {root}: nclab-data fetch {name}")
            continue
        list(pieces(own, folder / f"{own.name}.tar.gz"))
    return missing


def ours(out: Path) -> bool:
    """Whether the folder may be replaced: there is none, it is empty, or it is a bundle."""
    if not out.is_dir():
        return not os.path.lexists(out)
    return not any(out.iterdir()) or all((out / name).is_file() for name in ("SHA256SUMS", "CONTENTS.md"))


def fill(bundle: Path, args: argparse.Namespace) -> list[str]:
    """Make the bundle in a new folder; returns what is missing. Raises ValueError, CalledProcessError, OSError."""
    wheels = bundle / "wheels"
    wheels.mkdir(parents=True)
    wanted = needs([*WANTED], args.python) - needs(args.have, args.python) - {"nclab"}
    download(args.uv, pinned((ROOT / "requirements.lock").read_text(), wanted, args.python), wheels, args.python)
    (bundle / "requirements.txt").unlink()
    build_wheel(args.uv, ROOT, wheels)
    missing = pack_data(args.data, data_root(None), bundle / "data")
    finish(bundle)
    return missing


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, default=ROOT / "build" / "gpu-bundle")
    add("--have", nargs="*", default=["torch", "torchvision", "numpy"], help="packages that the machine has")
    add("--python", default="3.12", help="its Python")
    add("--data", nargs="*", choices=[*DATA], default=[*DATA], help="datasets; none: --data alone")
    add("--uv", default=shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv"))
    args = parser.parse_args(words)
    out: Path = args.out
    if not ours(out):
        parser.error(f"--out: expected a folder that is new, empty or a bundle (SHA256SUMS, CONTENTS.md), got {out}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{out.name}.part-", dir=out.parent) as place:
            missing = fill(bundle := Path(place) / out.name, args)
            if out.is_dir():
                shutil.rmtree(out)
            bundle.rename(out)
    except (subprocess.CalledProcessError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print((out / "CONTENTS.md").read_text(), *missing, out, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
