#!/usr/bin/env bash
# This script makes the environment, installs mexjax, and trains and reports FDP by
# leave-one-subject-out on the embedded dataset.
# On a machine with an NVIDIA GPU the environment has JAX for CUDA; MEXJAX_GPU=0 takes the CPU.
# Further arguments go to the command: bash launch/demo.sh --config.seed=1 --workdir=runs/seed1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
use_this_machine
exec "$venv/bin/python" -m mexjax.main --config=configs/fdp.py "$@"
