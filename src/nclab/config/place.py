"""Where the files of conf/ are: in a checkout beside src/, in an installed package inside it."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
CONF = next(p for p in (PACKAGE.parents[1] / "conf", PACKAGE / "conf") if (p / "train.yaml").exists())
