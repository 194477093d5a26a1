"""Acceptance on a GPU: what no CPU can show, in lines that are measured one by one; one table, one JSON file.

    python -m nclab.bench.gpu        at most ten minutes on one GPU; on a CPU a minute, and such lines say "no GPU"

A line is one module here with a `LINE`: its aims and the function that measures them. Each runs in a process of its
own, with a time limit: one that fails, hangs or breaks the device says so and costs no other.
"""
