#!/usr/bin/env bash
# This script makes the environment, installs mexjax with the test extra, checks style, layers and
# types, and runs the tests of every module.
# With --all as the first argument, the tests marked `slow` or `gpu_program` run too, as they do
# in .ci/run.
# Further arguments go to pytest: bash launch/test.sh --all tests/train/test_folds.py -k shard
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
marks="not slow and not gpu_program"
if [ "${1:-}" = "--all" ]; then
    marks=""
    shift
fi
use_environment "${MEXJAX_TEST_EXTRAS:-test}"
"$venv/bin/python" -m ruff check .
"$venv/bin/python" -m ruff format --check .
"$venv/bin/lint-imports" --no-logo  # the layers of the package
"$venv/bin/basedpyright" --pythonpath "$venv/bin/python"
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile --durations=40 --durations-min=1 \
    -m "$marks" "$@"
