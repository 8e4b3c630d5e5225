#!/usr/bin/env bash
# Starts one run as several processes on this machine, over loopback:
#
#     launch/local.sh N FLAGS OF cnn_papers.main...
#
# Ctrl-C, SIGTERM and SIGUSR1 are passed on: all save and stop; a second Ctrl-C kills them. When one
# process fails, the others are stopped. Exits with the code of the first that failed, 0 if none
# did. With NVIDIA GPUs each process takes an equal part of them. Needs bash 5.1.
#
# Environment: PYTHON (python); GRACE_S (30), seconds for the other processes to end after one has
# ended; MODULE (cnn_papers.main), cnn_papers.benchmark for measurements over processes.
set -euo pipefail

if ! [[ "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: launch/local.sh N --config=configs/PAPER.py [FLAGS...]" >&2
    exit 2
fi
count=$1
shift
python=${PYTHON:-python}
grace_s=${GRACE_S:-30}

find_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
port=$("$python" -c "$find_port")
gpus=()
if [[ -n "${CUDA_VISIBLE_DEVICES:-}" ]]; then
    IFS=, read -ra gpus <<< "$CUDA_VISIBLE_DEVICES"
elif command -v nvidia-smi > /dev/null && [[ "${JAX_PLATFORMS:-}" != cpu ]]; then
    mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader)
fi
if ((${#gpus[@]} % count)); then
    echo "error: ${#gpus[@]} GPUs do not divide over $count processes;" \
        "name some in CUDA_VISIBLE_DEVICES" >&2
    exit 2
fi

pids=()
timer=
asked=0
again=TERM
# shellcheck disable=SC2317  # traps reach it
pass_on() {
    asked=1
    kill "-$1" "${pids[@]}" 2> /dev/null || true
}
# Ctrl-C goes on as TERM: a process that is still starting would ignore INT.
trap 'pass_on "$again"; again=KILL' INT
trap 'pass_on TERM' TERM
trap 'pass_on USR1' USR1
trap 'kill "$timer" 2> /dev/null || true' EXIT

for ((i = 0; i < count; i++)); do
    visible=()
    if ((${#gpus[@]})); then
        each=$((${#gpus[@]} / count))
        visible=("CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${gpus[*]:i*each:each}")")
    fi
    env "${visible[@]}" "$python" -m "${MODULE:-cnn_papers.main}" \
        --coordinator="127.0.0.1:$port" --num_processes="$count" --process_id="$i" "$@" &
    pids+=($!)
done

code=0
left=("${pids[@]}")
while ((${#left[@]})); do
    ended=
    status=0
    wait -n -p ended "${left[@]}" ${timer:+"$timer"} || status=$?
    if [[ -z "${ended:-}" ]]; then
        continue # a signal came in between
    elif [[ "$ended" == "$timer" ]]; then
        kill -KILL "${left[@]}" 2> /dev/null || true
        timer=
        continue
    fi
    others=()
    for pid in "${left[@]}"; do
        [[ "$pid" == "$ended" ]] || others+=("$pid")
    done
    left=("${others[@]}")
    if ((status && !code)); then
        code=$status
        if ((!asked && ${#left[@]})); then
            kill -TERM "${left[@]}" 2> /dev/null || true
        fi
        # A process that waits for the one that is gone does not notice the request.
        sleep "$grace_s" > /dev/null 2>&1 &
        timer=$!
    fi
done
exit "$code"
