"""Many runs: launchers, workers of one machine, Slurm."""
