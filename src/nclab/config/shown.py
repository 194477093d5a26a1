"""`nclab-train --help` and tab completion without torch, which takes seconds to import.

Both need the YAML files of conf/, which Hydra reads by itself, and what registries say: the text of the help and the
options without a YAML file. `python -m nclab.config.docs` stores the two in shown.json. Plug-ins, and words that do not
fit, are left to `nclab.train`, which asks the registries.
"""

import io
import json
import os
import sys
from contextlib import redirect_stdout, suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from nclab.config.listed import experiment_lines
from nclab.config.place import CONF
from nclab.system.redact import redact
from nclab.system.terminal import lasting_terminal

FILE = Path(__file__).with_name("shown.json")
SHOWING = {"--help", "-h", "--shell-completion", "-sc"}
ELSEWHERE = ("plugins", "experiment", "+", "~", "hydra", "resume", "paper")  # words that may bring or need more


def shown(words: list[str]) -> bool:
    """Show what the words of the command line ask for, if that is all they ask for and the stored text answers it;
    else False, and nothing was printed."""
    known = all(word in SHOWING if word.startswith("-") else not word.startswith(ELSEWHERE) for word in words)
    if not (known and SHOWING & set(words) and all(redact(word) == word for word in words)):
        return False
    if entry_points(group="nclab.plugins"):
        return False
    text = _composed(json.loads(FILE.read_text(encoding="utf-8")))
    if text is None:
        return False
    with lasting_terminal():
        print(text, end="")
    return True


def _composed(stored: dict[str, Any]) -> str | None:
    """What Hydra prints; None where it finds something wrong."""
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise to us instead of printing
    text = stored["help"][0] + experiment_lines(CONF) + stored["help"][1]
    OmegaConf.register_new_resolver("nclab_help", lambda: text, replace=True)
    for group, options in stored["options"].items():
        for name, values in options.items():
            ConfigStore.instance().store(name, values, group=group, provider="nclab")
    said, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(said), suppress(Exception):
        from hydra._internal.hydra import Hydra  # private: where Hydra moves it, the slow way shows the help

        before, list_groups = sys.stderr, Hydra.format_config_groups
        try:
            sys.stderr = errors
            # What $APP_CONFIG_GROUPS stands for, which our template lacks: Hydra lists it all the same, and copies all
            # that it knows for each group, which is nine tenths of the time.
            Hydra.format_config_groups = lambda *_: ""
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(lambda config: None)()
        except SystemExit as end:
            if end.code:
                return None
        finally:
            sys.stderr, Hydra.format_config_groups = before, list_groups
            GlobalHydra.instance().clear()
        return None if errors.getvalue() else said.getvalue()
    return None
