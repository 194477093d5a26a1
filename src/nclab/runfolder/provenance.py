"""What a run ran with: process and job, versions, commit and hardware."""

import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def process() -> dict[str, Any]:
    """Which process is at work, and for which job of a cluster; `restarts`: how often the cluster began it again."""
    slurm = {"job": slurm_job(), "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0))} if slurm_job() else {}
    return {"host": socket.gethostname(), "pid": os.getpid(), **slurm}


def slurm_job() -> str | None:
    """The id of the Slurm job that this process is in, `N` or `N_i` in an array; None outside of one."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def provenance(device: str, threads: int) -> dict[str, Any]:
    """Versions, commit and hardware that a run ran with."""
    packages = ("nclab", "torch", "numpy", "hydra-core")
    hardware = {"device": device, "threads": threads, "processor": _processor(), "cores": os.cpu_count()}
    if device.startswith("cuda"):
        hardware["gpu"] = torch.cuda.get_device_name(device)
    versions = {"python": platform.python_version(), **{p: version(p) for p in packages}}
    return {"versions": versions, "commit": _commit(), "hardware": hardware}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@cache  # as it was at the first run of this process: what is committed or edited later is mostly not what it runs
def _commit() -> str | None:
    """Commit of the source tree, with `-dirty` where tracked files differ; None outside a checkout."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
