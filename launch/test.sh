#!/usr/bin/env bash
# Environment, installation with the test extra, style checks and every test.
# Further arguments go to pytest: bash launch/test.sh tests/train/test_folds.py -k shard
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
use_environment "${MEXJAX_TEST_EXTRAS:-test}"
"$venv/bin/python" -m ruff check .
"$venv/bin/python" -m ruff format --check .
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile "$@"
