"""How a command ends: exit codes, and the one line that says why."""

import os
import sys
import time

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nclab.config.experiments import with_options
from nclab.config.schema import ConfigError
from nclab.data import MissingDataError
from nclab.interfaces.plugins import PluginError
from nclab.parallel.group import PeerLost, is_first
from nclab.system.machine import OutOfMemory
from nclab.system.signals import Stopped

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
BAD = (ConfigError, PluginError, MissingDataError, HydraException, OmegaConfBaseException)
SECONDS_FOR_THE_FIRST = 30.0  # process of several to say what is wrong
SAME_COMMAND = "the same command"


def same_command() -> str:
    """What goes on with this one's runs: with overwrite=true it would begin again."""
    return SAME_COMMAND + (" without overwrite=true" if "overwrite=true" in sys.argv else "")


def complain(error: BaseException, code: int, whose: str = "") -> int:
    """The message on one line, with the keys that would have been right where Hydra does not name them."""
    if not is_first():
        if isinstance(error, Stopped) or (isinstance(error, PeerLost) and error.said):
            return code
        if isinstance(error, OutOfMemory):  # of this process, as a rule
            whose = f"process {os.environ['RANK']}: {whose}"
        elif not isinstance(error, PeerLost):
            # The first process has the same to say, as a rule, and its launcher then ends this one. It may still be
            # starting, and would be ended itself if this one left before.
            time.sleep(SECONDS_FOR_THE_FIRST)
    lines = [line.strip() for line in str(error).split("Config search path")[0].splitlines() if line.strip()]
    text = with_options("; ".join(lines) or type(error).__name__)
    parent = getattr(error.__cause__, "parent_node", None)
    if isinstance(parent, DictConfig):
        of = f" of '{parent.name}'" if "name" in parent else ""
        text = f"{lines[0]} Valid keys{of}: {', '.join(map(str, parent))}"
    elif parent is not None:  # a list
        text = f"{lines[0]}: expected a list such as {parent}"
    if isinstance(error, OSError) and not isinstance(error, MissingDataError) and code == FAILED:
        text += "; what was saved is kept, the same command resumes"
    text = text.replace(SAME_COMMAND, same_command())
    print(f"error: {whose}{text}", file=sys.stderr)
    return code
