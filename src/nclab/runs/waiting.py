"""Why Slurm lets a job wait, and what to do where it would wait for ever. The reasons are squeue's own words
(https://slurm.schedmd.com/job_reason_codes.html)."""

import re
from collections.abc import Iterable

from nclab.runs.queue import Queue
from nclab.system.words import first_of

SECONDS_TO_ADVISE = 60.0  # that a job has waited: many reasons pass within seconds
ORDINARY = ("", "None")  # says nothing
HELD = re.compile(r"JobHeld.*|JobHoldMaxRequeue|.*\bheld\b.*", re.IGNORECASE)
HELD_STATES = ("REQUEUE_HOLD", "SPECIAL_EXIT")
NEVER = re.compile(
    r"PartitionConfig|PartitionNodeLimit|PartitionTimeLimit|BadConstraints|Invalid(Account|QOS)|(Account|QOS)NotAllowed"
    r"|DependencyNeverSatisfied|ReservationDeleted|(QOS|Assoc).*PerJob.*"
)
NO_NODE = re.compile(r"PartitionDown|PartitionInactive|ReqNodeNotAvail.*|.*\b(DOWN|DRAINED)\b.*|NodeDown")


def what_to_do(job: str, state: str, reason: str) -> str | None:
    """What is the matter with a job that waits for this reason and what to do; None where it begins by itself."""
    array = job.partition("_")[0]
    if state in HELD_STATES or HELD.fullmatch(reason):
        return f"it is held until 'scontrol release {job}'; 'scontrol show job {job}' says more"
    if NEVER.fullmatch(reason):
        return (
            "no node or limit of the site allows what it asks for, so it never begins: "
            f"'scancel {array}', correct hydra.launcher.*, and give the same command"
        )
    if NO_NODE.fullmatch(reason):
        return "nodes are down, drained or reserved: 'sinfo -R' says why; it begins by itself once they are back"
    return None


def advice(queue: Queue, jobs: Iterable[str]) -> dict[str, str]:
    """For each reason for which some of these jobs never begin: a line that names the first of them and what to do."""
    alike: dict[str, list[str]] = {}
    for job in dict.fromkeys(jobs):
        state, reason = queue.jobs.get(job, ""), queue.reasons.get(job, "")
        if what_to_do(job, state, reason):
            alike.setdefault(with_reason(state, reason), []).append(job)
    found = {}
    for standing, those in alike.items():
        told = what_to_do(those[0], queue.jobs[those[0]], queue.reasons.get(those[0], ""))
        found[standing] = f"job {first_of(those, most=1)}: {standing}: {told}"
    return found


def with_reason(state: str, reason: str) -> str:
    """'PENDING (Resources)'."""
    return state if reason in ORDINARY else f"{state} ({reason})"
