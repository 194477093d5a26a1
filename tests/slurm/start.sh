#!/bin/bash
# A real one-node Slurm (munged, slurmctld, slurmd) started by hand on 127.0.0.1, for tests: no systemd, no cgroups, no
# database, nothing in /etc. Everything lives in the folder given; daemons that run already are left alone.
#
#   tests/slurm/start.sh FOLDER && export SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm/stop.sh FOLDER
#
# Needs root and Debian's packages slurm-wlm and munge. Environment: SLURM_TEST_CPUS (4; may exceed the real cores),
# SLURM_TEST_GPUS (2 fake ones), SLURM_TEST_PORT (16817; the node takes the next), SLURM_TEST_WARN (1: a preempted job
# gets its warning signal; 0: only TERM), SLURM_TEST_NODE_TIMEOUT_S (20).
set -euo pipefail
DIR=${1:?usage: start.sh FOLDER}
CPUS=${SLURM_TEST_CPUS:-4}
GPUS=${SLURM_TEST_GPUS:-2}
PORT=${SLURM_TEST_PORT:-16817}
die() { echo "slurm/start.sh: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "must be root: slurmd starts jobs as their users"
for program in slurmctld slurmd munged sbatch; do
  PATH=$PATH:/usr/sbin command -v $program >/dev/null || die "$program is not installed (packages slurm-wlm and munge)"
done
mkdir -p "$DIR"/{log,state,spool,munge,gres}
DIR=$(cd "$DIR" && pwd -P)
chmod 0755 "$DIR" "$DIR"/{log,state,spool,munge}
HOST=$(hostname)
getent hosts "$HOST" >/dev/null || die "host name '$HOST' does not resolve; add '127.0.0.1 $HOST' to /etc/hosts"

alive() { # PIDFILE NAME: the process is that program, and no zombie (in a container nobody may reap it)
  local pid status
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && status=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1
  case "$status" in "$pid ($2) Z"*) return 1;; "$pid ($2) "*) return 0;; esac
  return 1
}

if ! alive "$DIR/munge/munged.pid" munged; then
  rm -f "$DIR"/munge/munge.socket* "$DIR/munge/munged.pid"
  [ -s "$DIR/munge/munge.key" ] || (umask 077; dd if=/dev/urandom of="$DIR/munge/munge.key" bs=128 count=1 status=none)
  /usr/sbin/munged --key-file="$DIR/munge/munge.key" --socket="$DIR/munge/munge.socket" \
    --pid-file="$DIR/munge/munged.pid" --log-file="$DIR/munge/munged.log" --seed-file="$DIR/munge/munged.seed" >&2
fi

warn=""; [ "${SLURM_TEST_WARN:-1}" = 0 ] || warn="SlurmctldParameters=preempt_send_user_signal"
gres=""; node_gres=""
if [ "$GPUS" -gt 0 ]; then
  for i in $(seq 0 $((GPUS - 1))); do # slurmd wants character devices; copies of /dev/null will do
    [ -c "$DIR/gres/fakegpu$i" ] || mknod "$DIR/gres/fakegpu$i" c 1 3
  done
  gres="GresTypes=gpu"; node_gres="Gres=gpu:$GPUS"
  echo "NodeName=${HOST%%.*} Name=gpu File=$DIR/gres/fakegpu[0-$((GPUS - 1))]" > "$DIR/gres.conf"
fi
# Fresh state must not begin at job 1 again: what is named by job id would be mistaken for that of an earlier cluster.
[ -s "$DIR/first_job_id" ] || echo $(($(date +%s) % 40000000 + 1000)) > "$DIR/first_job_id"
sed '/^$/d' > "$DIR/slurm.conf" <<C
ClusterName=onebox
FirstJobId=$(cat "$DIR/first_job_id")
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits before it may start again (default 120 s)
AuthInfo=socket=$DIR/munge/munge.socket,cred_expire=5
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.log
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1,sched_min_interval=200000
PriorityType=priority/basic
AccountingStorageType=accounting_storage/none
KillWait=10
MinJobAge=3600
SlurmctldTimeout=60
SlurmdTimeout=${SLURM_TEST_NODE_TIMEOUT_S:-20}
MessageTimeout=10
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$warn
$gres
NodeName=${HOST%%.*} NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 1)) CPUs=$CPUS RealMemory=8000 $node_gres State=UNKNOWN
PartitionName=low Nodes=${HOST%%.*} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=${HOST%%.*} Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
C
export SLURM_CONF="$DIR/slurm.conf"
alive "$DIR/slurmctld.pid" slurmctld || { rm -f "$DIR/slurmctld.pid"; /usr/sbin/slurmctld -f "$SLURM_CONF" >&2; }
alive "$DIR/slurmd.pid" slurmd || { rm -f "$DIR/slurmd.pid"; /usr/sbin/slurmd -f "$SLURM_CONF" -N "${HOST%%.*}" >&2; }

for _ in $(seq 150); do # sinfo blocks while slurmctld is away
  case "$(timeout 5 sinfo -h -p low -o %T 2>/dev/null || true)" in
    idle | mixed | allocated | completing) exit 0 ;;
    down* | drain*) scontrol update "NodeName=${HOST%%.*}" State=RESUME >&2 || true ;;
  esac
  sleep 0.2
done
tail -n 15 "$DIR"/log/*.log >&2
die "the node is not idle after 30 s"
