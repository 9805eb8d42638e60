#!/usr/bin/env bash
# FDP by leave-one-subject-out on the embedded dataset: environment, installation, training, report.
# Further arguments go to the command: bash launch/demo.sh --config.seed=1 --workdir=runs/seed1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
use_environment ""
exec "$venv/bin/python" -m mexjax.main --config=configs/fdp.py "$@"
