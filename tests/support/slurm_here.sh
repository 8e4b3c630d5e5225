#!/usr/bin/env bash
# A SLURM of this machine alone, over loopback: tests/support/slurm_here.sh start|stop FOLDER. Its files are all in FOLDER.
#
# Needs root and Debian's slurm-wlm and munge; exits with 77 and the reason where that is not so. Prints how to use it.
set -euo pipefail

skip() {
    echo "$1"
    exit 77
}

stop() {
    local name
    for name in slurmd slurmctld munged; do
        if [[ -s "$1/$name.pid" ]]; then
            kill "$(< "$1/$name.pid")" 2> /dev/null || true
        fi
    done
}

start() {
    local folder=$1 name port cpus memory
    for name in munged slurmctld slurmd sbatch; do
        command -v "$name" > /dev/null || skip "no $name: apt-get install slurm-wlm"
    done
    ((EUID == 0)) || skip "slurmd needs root"
    mkdir -p "$folder"/{state,spool}
    chmod 755 "$folder"
    head -c 1024 /dev/urandom > "$folder/munge.key"
    chmod 400 "$folder/munge.key"
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" --num-threads=2
    port=$((20000 + RANDOM % 10000))
    cpus=$(nproc)
    memory=$(($(grep MemTotal /proc/meminfo | tr -dc 0-9) / 1024))
    name=$(hostname -s)
    cat > "$folder/slurm.conf" << CONF
ClusterName=here
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
ReturnToService=2
KillWait=10
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
    export SLURM_CONF=$folder/slurm.conf
    slurmctld
    slurmd -N "$name"
    for _ in {1..100}; do
        if [[ "$(sinfo --noheader --format=%T 2> /dev/null)" == idle ]]; then
            echo "export SLURM_CONF=$folder/slurm.conf"
            return
        fi
        sleep 0.2
    done
    stop "$folder"
    tail -n 3 "$folder"/slurm*.log >&2
    skip "slurmd did not come up within 20 s"
}

case "${1:-} ${2:+folder}" in
    "start folder") start "$2" ;;
    "stop folder") stop "$2" ;;
    *)
        echo "usage: tests/support/slurm_here.sh start|stop FOLDER" >&2
        exit 2
        ;;
esac
