#!/bin/bash
# End the Slurm of start.sh: its jobs, then the processes named in its own pid files, if they are still those programs.
set -uo pipefail
DIR=$(cd "${1:?usage: stop.sh FOLDER}" && pwd -P) || exit 0
export SLURM_CONF="$DIR/slurm.conf"
live() { case "$(cat "/proc/$1/stat" 2>/dev/null)" in "$1 ($2) Z"*) return 1;; "$1 ($2) "*) return 0;; esac; return 1; }
jobs=$(timeout 10 squeue -h -o %A 2>/dev/null | sort -u) # first, or their steps outlive the daemons
if [ -n "$jobs" ]; then
  timeout 10 scancel --signal=KILL --full $jobs; timeout 10 scancel $jobs
  for _ in $(seq 50); do [ -z "$(timeout 5 squeue -h -o %A 2>/dev/null)" ] && break; sleep 0.2; done
fi
for daemon in slurmd:slurmd.pid slurmctld:slurmctld.pid munged:munge/munged.pid; do
  name=${daemon%%:*}
  pid=$(cat "$DIR/${daemon#*:}" 2>/dev/null) || continue
  live "$pid" "$name" || continue
  kill -TERM "$pid"
  for _ in $(seq 50); do live "$pid" "$name" || break; sleep 0.1; done
  live "$pid" "$name" && kill -KILL "$pid"
done
exit 0
