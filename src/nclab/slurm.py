"""The old path of a job's class. A job in the queue is a pickle, which names its class by module: a job submitted
before there was `nclab.cluster.job` unpickles and runs through this one."""

from nclab.cluster.job import Job as Work

__all__ = ["Work"]
