"""nclab: neural collapse with simplex ETFs, from one command to a paper's figures."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("nclab")
except PackageNotFoundError:  # src/ on a path, not installed
    __version__ = "0.0.0"
