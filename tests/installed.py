"""Wheels built as they are for a user, and an environment of their own for them."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILT = ("src", "conf", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")


def built(source: Path, out: Path, kind: str = "wheel", backend: str = "hatchling.build") -> Path:
    """The wheel or sdist of a project, by the build backend that is installed here; no network."""
    code = f"import {backend} as backend; print(backend.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


def copied(source: Path, to: Path, names: tuple[str, ...] = (".",)) -> Path:
    """A copy of a project without git and caches."""
    to.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).is_file():
            shutil.copy2(source / name, to / name)
        else:
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
            shutil.copytree(source / name, to / name, ignore=ignored, dirs_exist_ok=True)
    return to


def environment(folder: Path, *wheels: Path) -> Path:
    """A new environment with these wheels; returns its bin/.

    What they depend on is that of the tests' environment, whose folder a .pth file adds. A .pth file inside that
    folder, such as the one that leads to this checkout, has no effect then.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "lib" / version / "site-packages" / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")  # one of them made this environment
    words = (
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-config",
        "--no-deps",
        "--python",
        folder / "bin" / "python",
    )
    done = subprocess.run([uv, *words, *wheels], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "bin"
