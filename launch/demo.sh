#!/usr/bin/env bash
# This script makes the environment, installs mexjax, and trains and reports FDP by
# leave-one-subject-out on the embedded dataset.
# Further arguments go to the command: bash launch/demo.sh --config.seed=1 --workdir=runs/seed1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
if [ -z "${MEXJAX_EXTRAS:-}" ] && command -v nvidia-smi >/dev/null 2>&1; then
    echo "There is an NVIDIA GPU here; this installs JAX for the CPU. For the GPU:"
    echo "    MEXJAX_EXTRAS=cuda12 bash launch/demo.sh"
fi
use_environment "${MEXJAX_EXTRAS:-}"
exec "$venv/bin/python" -m mexjax.main --config=configs/fdp.py "$@"
