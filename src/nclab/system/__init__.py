"""The machine: memory, threads, signals, locks, secrets."""
