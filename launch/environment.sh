# Sourced by the other scripts: makes or reuses the environment in .venv.
#
#   MEXJAX_PYTHON  the Python to use (default: the newest of python3.13 ... python3.11, python3)
#   MEXJAX_VENV    where the environment is kept (default: .venv in the checkout)

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${MEXJAX_VENV:-$root/.venv}"

is_new_enough() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local name
    if [ -n "${MEXJAX_PYTHON:-}" ] && ! is_new_enough "$MEXJAX_PYTHON"; then
        echo "MEXJAX_PYTHON=$MEXJAX_PYTHON is not a Python 3.11 or newer with its venv module." >&2
        return 1
    fi
    for name in "${MEXJAX_PYTHON:-}" python3.13 python3.12 python3.11 python3 python python3.14; do
        if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 && is_new_enough "$name"; then
            command -v "$name"
            return 0
        fi
    done
    echo "mexjax needs Python 3.11 or newer with its venv module, and none was found." >&2
    echo "Found: $(command -v python3 >/dev/null && python3 --version 2>&1 || echo 'no python3')." >&2
    echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; or conda create -n mexjax python=3.12)," >&2
    echo "or say which to use: MEXJAX_PYTHON=/path/to/python bash launch/demo.sh" >&2
    return 1
}

# use_environment EXTRAS: installs mexjax[EXTRAS] unless just that is installed already.
use_environment() {
    local extras="$1" python stamp packages wanted
    stamp="$venv/.mexjax-installed"
    if [ ! -x "$venv/bin/python" ] || ! is_new_enough "$venv/bin/python"; then
        python="$(find_python)" || return 1
        echo "Making an environment in $venv with $("$python" --version)"
        if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
            echo "$venv is in the way: it is not an environment. Set MEXJAX_VENV to another place." >&2
            return 1
        fi
        # Only an environment of this script is replaced, never one that somebody else made.
        if [ -e "$venv" ] && [ ! -e "$stamp" ] && [ "$venv" != "$root/.venv" ]; then
            echo "$venv holds another environment, whose Python is too old. Set MEXJAX_VENV to another place." >&2
            return 1
        fi
        rm -rf "$venv"
        "$python" -m venv "$venv" || return 1
    fi
    packages="$(cat "$root/pyproject.toml" "$root/setup.py" | cksum)"
    wanted="$extras $packages"
    if ! grep -qxF "$wanted" "$stamp" 2>/dev/null; then
        echo "Installing mexjax${extras:+[$extras]} and what it needs (once; about a minute)"
        if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            -e "$root${extras:+[$extras]}"; then
            echo "The installation failed; pip's message is above. Starting again goes on from here." >&2
            return 1
        fi
        # A later pyproject.toml or setup.py makes every earlier line stale, so it replaces them.
        grep -F "$packages" "$stamp" >"$stamp.new" 2>/dev/null || true
        echo "$wanted" >>"$stamp.new" && mv "$stamp.new" "$stamp"
    fi
}
