"""How a command ends: exit codes, and the one line that says why."""

import os
import sys
import time

from omegaconf.errors import OmegaConfBaseException

from nclab.config.schema import ConfigError
from nclab.data import MissingDataError
from nclab.interfaces.plugins import PluginError
from nclab.parallel.group import PeerLost, is_first
from nclab.system.machine import OutOfMemory
from nclab.system.signals import Stopped
from nclab.system.words import typed_true

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
BAD = (ConfigError, PluginError, MissingDataError, OmegaConfBaseException)
SECONDS_FOR_THE_FIRST = 30.0  # process of several to say what is wrong
SAME_COMMAND = "the same command"


def same_command() -> str:
    """What goes on with this one's runs: with overwrite=true it would begin again."""
    return SAME_COMMAND + (" without overwrite=true" if typed_true("overwrite", sys.argv) else "")


def complain(error: BaseException, code: int, whose: str = "") -> int:
    """Print the message on one line; returns the code."""
    if not is_first():
        if isinstance(error, Stopped) or (isinstance(error, PeerLost) and error.said):
            return code
        if isinstance(error, OutOfMemory):  # of this process, as a rule
            whose = f"process {os.environ['RANK']}: {whose}"
        elif not isinstance(error, PeerLost):
            # The first process has the same to say, as a rule, and its launcher then ends this one. It may still be
            # starting, and would be ended itself if this one left before.
            time.sleep(SECONDS_FOR_THE_FIRST)
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
    if isinstance(error, OSError) and not isinstance(error, MissingDataError) and code == FAILED:
        text += "; what was saved is kept, the same command resumes"
    text = text.replace(SAME_COMMAND, same_command())
    print(f"error: {whose}{text}", file=sys.stderr)
    return code
