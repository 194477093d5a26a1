"""A process that ends with the one that started it.

python -P -m nclab.system.lifetime PARENT COMMAND...    becomes the command
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Where the kernel can (Linux), this process is killed as soon as `parent`, which started it, is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)


def ending_with_this_process(command: list[str]) -> list[str]:
    """The command, such that it ends with this process when that runs it."""
    return [sys.executable, "-P", "-m", "nclab.system.lifetime", str(os.getpid()), *command]


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 what a launcher of ours gave
