#!/usr/bin/env bash
# Trains one run by several processes of this machine, which share the folds.
#
#   bash launch/local.sh N --config=fdp --workdir=runs/fdp [...]
#
# Each process takes its part of the GPUs: with 8 GPUs and N=2 the first four and the last four.
# Without GPUs, each process computes on the CPU. Ctrl-C stops all of them; the same command
# continues. The output of process 0 is shown; that of the others is in FOLDER/process_I.log, where
# FOLDER is that of $MEXJAX_LOGS, else of this shell.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [ $# -lt 2 ] || ! [[ "$1" =~ ^[1-9][0-9]*$ ]]; then
    echo "Usage: bash launch/local.sh N --config=CARD --workdir=FOLDER [options of mexjax train]" >&2
    exit 2
fi
count="$1"
shift
python="${MEXJAX_PYTHON:-$venv/bin/python}"
if [ ! -x "$python" ]; then
    echo "There is no $python: run launch/demo.sh once, or name one by MEXJAX_PYTHON." >&2
    exit 2
fi
logs="${MEXJAX_LOGS:-.}"
mkdir -p "$logs"
port="$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
gpus=0
if command -v nvidia-smi >/dev/null 2>&1; then
    gpus="$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)"
fi

processes=()
for ((i = 0; i < count; i++)); do
    part=()
    if ((gpus >= count)); then
        part=("JAX_LOCAL_DEVICE_IDS=$(seq -s, $((i * gpus / count)) $(((i + 1) * gpus / count - 1)))")
    fi
    command=(env ${part[@]+"${part[@]}"} "$python" -m mexjax.main "$@" "--coordinator=127.0.0.1:$port"
        "--num-processes=$count" "--process-id=$i")
    if ((i == 0)); then
        "${command[@]}" &
    else
        "${command[@]}" >"$logs/process_$i.log" 2>&1 &
    fi
    processes+=($!)
done
# Bash starts them with SIGINT ignored; SIGTERM saves and stops just as well.
trap 'kill -TERM "${processes[@]}" 2>/dev/null || true' INT TERM
status=0
for process in "${processes[@]}"; do
    # A signal ends `wait` before the process does.
    while kill -0 "$process" 2>/dev/null; do
        wait "$process" || status=$?
    done
    wait "$process" 2>/dev/null || status=$?
done
exit "$status"
