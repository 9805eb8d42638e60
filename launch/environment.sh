# Sourced by the other scripts: makes or reuses the environment in .venv.
#
#   MEXJAX_PYTHON  the Python to use (default: the newest of python3.13 ... python3.11, python3)
#   MEXJAX_VENV    where the environment is kept (default: .venv in the checkout)
#   MEXJAX_GPU     0: JAX is for the CPU, whatever GPU is there
#   MEXJAX_EXTRAS  the extras of pyproject.toml that are installed (default: cuda12 for an NVIDIA GPU)

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

# The oldest NVIDIA driver that runs CUDA 12.
oldest_driver=525

# of_driver QUERY...: what nvidia-smi answers; a broken driver may keep it waiting for minutes.
of_driver() {
    if command -v timeout >/dev/null 2>&1; then
        timeout 30 nvidia-smi "$@" 2>/dev/null
    else
        nvidia-smi "$@" 2>/dev/null
    fi
}

# choose_build: sets `build` to the extra with JAX for the GPUs of this machine, or to nothing where
# the CPU is used; `build_reason` to a line about it; and `is_gpu_idle` to 1 if a GPU is left alone.
choose_build() {
    local gpus driver name count installed
    build="" is_gpu_idle=""
    if [ "${MEXJAX_GPU:-}" = 0 ]; then
        is_gpu_idle=1
        build_reason="MEXJAX_GPU=0: the CPU is used."
        return 0
    fi
    gpus="$(of_driver -L | grep '^GPU [0-9]')" || gpus=""
    if [ -z "$gpus" ]; then
        build_reason="No NVIDIA driver was found"
        if command -v nvidia-smi >/dev/null 2>&1; then
            build_reason="nvidia-smi is here, but lists no GPU"
        fi
        build_reason="$build_reason: the CPU is used. MEXJAX_EXTRAS=cuda12 installs JAX for CUDA all the same."
        return 0
    fi
    is_gpu_idle=1
    count="$(echo "$gpus" | wc -l | tr -d ' ')"
    name="$(echo "$gpus" | sed -n '1s/^GPU [0-9]*: *//; 1s/ *(UUID.*$//p')"
    driver="$(of_driver --query-gpu=driver_version --format=csv,noheader | sed -n 1p)" || driver=""
    name="$count x ${name:-NVIDIA GPU}${driver:+, driver $driver}"
    case "$(uname -s) $(uname -m)" in
        "Linux x86_64" | "Linux aarch64") ;;
        *)
            build_reason="Found $name, but there is no JAX for CUDA on $(uname -s) $(uname -m): the CPU is used."
            return 0
            ;;
    esac
    case "${CUDA_VISIBLE_DEVICES-all}" in
        "" | -1 | NoDevFiles)
            build_reason="Found $name, hidden by CUDA_VISIBLE_DEVICES: the CPU is used. Unset the variable to use the GPU."
            return 0
            ;;
    esac
    case "${driver%%.*}" in
        "" | *[!0-9]*) ;; # not a number: the driver is taken to be new enough
        *)
            if [ "${driver%%.*}" -lt "$oldest_driver" ]; then
                build_reason="Found $name, but CUDA 12 needs driver $oldest_driver or newer: the CPU is used. Update the driver to use the GPU."
                return 0
            fi
            ;;
    esac
    build=cuda12 is_gpu_idle=""
    # JAX for two versions of CUDA in one environment would disturb itself.
    installed="$(cut -d' ' -f1 "$venv/.mexjax-installed" 2>/dev/null | tr ',' '\n')" || installed=""
    if echo "$installed" | grep -qx cuda13 && ! echo "$installed" | grep -qx cuda12; then
        build=cuda13
    fi
    build_reason="Found $name: the GPU is used, with the extra $build. MEXJAX_GPU=0 takes the CPU."
}

# use_this_machine: installs mexjax[MEXJAX_EXTRAS] or, if that is not set, for the GPUs of this machine
# if it has some, and for its CPU otherwise.
use_this_machine() {
    local status=0
    if [ -n "${MEXJAX_EXTRAS:-}" ]; then
        use_environment "$MEXJAX_EXTRAS"
        return
    fi
    choose_build
    echo "$build_reason"
    if [ -n "$build" ]; then
        use_environment "$build" || status=$?
        if [ "$status" -ne "$not_installed" ]; then
            return "$status"
        fi
        echo "JAX for CUDA could not be installed, so the CPU is used. The next start tries again; MEXJAX_GPU=0 does not." >&2
        is_gpu_idle=1
    fi
    # JAX for CUDA may be in the environment; it computes on the CPU if it is told so.
    if [ -n "$is_gpu_idle" ]; then
        export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
    fi
    use_environment ""
}

# The status of use_environment where pip failed.
not_installed=3

# use_environment EXTRAS: installs mexjax[EXTRAS] unless that is installed already.
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
    # Any extra comes with all that mexjax itself needs.
    if [ -z "$extras" ] && grep -qF " $packages" "$stamp" 2>/dev/null; then
        return 0
    fi
    if ! grep -qxF "$wanted" "$stamp" 2>/dev/null; then
        case ",$extras," in
            *,cuda*) echo "Installing mexjax[$extras] and what it needs (once; some gigabytes, several minutes)" ;;
            *) echo "Installing mexjax${extras:+[$extras]} and what it needs (once; about a minute)" ;;
        esac
        # pip that was interrupted ends like one that failed.
        trap 'exit 130' INT
        if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            -e "$root${extras:+[$extras]}"; then
            trap - INT
            echo "The installation failed; pip's message is above. Starting again goes on from here." >&2
            return "$not_installed"
        fi
        trap - INT
        # A later pyproject.toml or setup.py makes every earlier line stale, so it replaces them.
        grep -F "$packages" "$stamp" >"$stamp.new" 2>/dev/null || true
        echo "$wanted" >>"$stamp.new" && mv "$stamp.new" "$stamp"
    fi
}
