"""The scripts of launch/ choose JAX for CUDA or for the CPU; Python and the driver are fakes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small import ROOT

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(os.name == "nt" or BASH is None, reason="the scripts are for bash")

# Commands that the scripts call; no nvidia-smi of this machine is among them.
TOOLS = ["bash", "cat", "chmod", "cksum", "cp", "cut", "dirname", "grep", "mkdir", "mv", "rm"]
TOOLS += ["sed", "sleep", "tr", "wc"]
# Calls are written down in the file `calls` beside the scripts. An environment's Python is a copy.
PYTHON = """
case "$1 ${2:-}" in
    "--version ") echo "Python 3.12.1" ;;
    "-c "*) exit 0 ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo home >"$3/pyvenv.cfg" ;;
    "-m pip")
        [ -z "${PIP_WAITS:-}" ] || { echo ready; trap 'exit 1' INT; while :; do sleep 0.05; done; }
        place="${!#}" wanted="${place#"$HERE"}"
        echo "install${wanted:+ $wanted}" >>"$HERE/calls"
        case "$wanted${NO_CUDA:-}" in "[cuda"*lacks) echo "no wheel" >&2; exit 1 ;; esac
        [ -z "${NO_PIP:-}" ] || exit 1
        ;;
    "-m mexjax.main") echo "run ${JAX_PLATFORMS:-any} ${*:3}" >>"$HERE/calls" ;;
    *) echo "unknown call: $*" >&2; exit 9 ;;
esac
"""
DRIVER = """
case "$*" in
    -L) [ -n "${GPUS:-}" ] || { echo "NVIDIA-SMI has failed"; exit 9; }
        for ((i = 0; i < GPUS; i++)); do echo "GPU $i: NVIDIA H200 (UUID: GPU-$i)"; done
        echo "  MIG 1g.18gb     Device  0: (UUID: MIG-0)" ;;
    "--query-gpu=driver_version --format=csv,noheader")
        for ((i = 0; i < GPUS; i++)); do echo "${DRIVER-550.54.15}"; done ;;
    *) exit 8 ;;
esac
"""
RUN = "--config=configs/fdp.py"


class Checkout:
    """A checkout with the scripts, and a machine with what the test wants."""

    def __init__(self, root: Path) -> None:
        self.root, self.tools = root, root / "tools"
        shutil.copytree(ROOT / "launch", root / "launch")
        for name in ("pyproject.toml", "setup.py"):
            shutil.copy(ROOT / name, root / name)
        self.tools.mkdir()
        for name in TOOLS:
            path = shutil.which(name)
            assert path is not None
            (self.tools / name).symlink_to(path)
        self.add("python3.12", PYTHON)
        self.add("uname", 'case "$1" in -s) echo Linux ;; -m) echo "${CPU:-x86_64}" ;; esac')

    def add(self, name: str, script: str) -> None:
        file = self.tools / name
        file.write_text(f"#!{BASH}\n{script}")
        file.chmod(0o755)

    def environment(self, **variables: str) -> dict[str, str]:
        return {"PATH": str(self.tools), "HERE": str(self.root), **variables}

    def demo(self, *arguments: str, status: int = 0, **variables: str) -> tuple[str, list[str]]:
        """Text that the demo prints, and the calls that it makes."""
        calls = self.root / "calls"
        calls.write_text("")
        done = subprocess.run(
            [str(BASH), str(self.root / "launch" / "demo.sh"), *arguments],
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr, calls.read_text().splitlines()


@pytest.fixture
def plain(tmp_path) -> Checkout:
    """A machine without a driver."""
    return Checkout(tmp_path)


@pytest.fixture
def checkout(plain) -> Checkout:
    """A machine with nvidia-smi."""
    plain.add("nvidia-smi", DRIVER)
    return plain


def test_a_gpu_gets_jax_for_cuda(checkout):
    text, calls = checkout.demo("--config.seed=1", GPUS="2")
    assert calls == ["install [cuda12]", f"run any {RUN} --config.seed=1"]
    lines = text.splitlines()
    assert lines[0] == (
        "Found 2 x NVIDIA H200, driver 550.54.15: the GPU is used, with the extra cuda12."
        " MEXJAX_GPU=0 takes the CPU."
    )
    assert "Installing mexjax[cuda12]" in lines[2] and "gigabytes" in lines[2]
    _, calls = checkout.demo(GPUS="2")
    assert calls == [f"run any {RUN}"]


def test_no_driver_is_the_cpu(plain):
    text, calls = plain.demo()
    assert calls == ["install", f"run any {RUN}"]
    assert text.splitlines()[0] == (
        "No NVIDIA driver was found: the CPU is used. MEXJAX_EXTRAS=cuda12 installs JAX for CUDA"
        " all the same."
    )


def test_a_driver_that_does_not_work_is_none(checkout):
    text, calls = checkout.demo()
    assert calls == ["install", f"run any {RUN}"]
    assert text.startswith("nvidia-smi is here, but lists no GPU: the CPU is used. ")


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"MEXJAX_GPU": "0"}, "MEXJAX_GPU=0: the CPU is used."),
        (
            {"DRIVER": "470.82.01"},
            "Found 1 x NVIDIA H200, driver 470.82.01, but CUDA 12 needs driver 525 or newer: the"
            " CPU is used. Update the driver to use the GPU.",
        ),
        (
            {"CUDA_VISIBLE_DEVICES": ""},
            "Found 1 x NVIDIA H200, driver 550.54.15, hidden by CUDA_VISIBLE_DEVICES: the CPU is"
            " used. Unset the variable to use the GPU.",
        ),
        (
            {"CPU": "ppc64le"},
            "Found 1 x NVIDIA H200, driver 550.54.15, but there is no JAX for CUDA on Linux"
            " ppc64le: the CPU is used.",
        ),
    ],
)
def test_a_gpu_that_is_not_used_is_told_why(checkout, variables, text):
    said, calls = checkout.demo(GPUS="1", **variables)
    assert calls == ["install", f"run cpu {RUN}"]
    assert said.splitlines()[0] == text


@pytest.mark.parametrize("driver", ["525.60.13", "1000.1", "", "[N/A]"])
def test_a_driver_that_is_new_enough_or_does_not_say(checkout, driver):
    _, calls = checkout.demo(GPUS="1", DRIVER=driver)
    assert calls == ["install [cuda12]", f"run any {RUN}"]


def test_an_arm_server_has_jax_for_cuda(checkout):
    assert checkout.demo(GPUS="1", CPU="aarch64")[1][0] == "install [cuda12]"


def test_a_driver_that_appears_is_used(checkout):
    assert checkout.demo()[1][0] == "install"
    assert checkout.demo(GPUS="1")[1] == ["install [cuda12]", f"run any {RUN}"]
    assert checkout.demo(GPUS="1")[1] == [f"run any {RUN}"]


def test_an_environment_for_a_gpu_serves_the_cpu(checkout):
    """Nothing is installed, so no network is needed; a GPU that is there stays unused."""
    assert checkout.demo(GPUS="1")[1][0] == "install [cuda12]"
    assert checkout.demo()[1] == [f"run any {RUN}"]
    assert checkout.demo(GPUS="1", MEXJAX_GPU="0")[1] == [f"run cpu {RUN}"]
    assert checkout.demo(GPUS="1", MEXJAX_GPU="0", JAX_PLATFORMS="cuda")[1] == [f"run cuda {RUN}"]
    assert checkout.demo(GPUS="1")[1] == [f"run any {RUN}"]


def test_a_later_pyproject_is_installed_again(checkout):
    checkout.demo(GPUS="1")
    with (checkout.root / "pyproject.toml").open("a") as file:
        file.write("# later\n")
    assert checkout.demo()[1] == ["install", f"run any {RUN}"]
    assert checkout.demo(GPUS="1")[1] == ["install [cuda12]", f"run any {RUN}"]


def test_extras_that_are_named_are_those_that_are_installed(checkout):
    text, calls = checkout.demo(GPUS="1", MEXJAX_EXTRAS="cuda13")
    assert calls == ["install [cuda13]", f"run any {RUN}"] and "Found" not in text
    text, calls = checkout.demo(GPUS="1")  # not a second build beside it
    assert calls == [f"run any {RUN}"] and "with the extra cuda13" in text


def test_the_cpu_is_used_where_jax_for_cuda_cannot_be_installed(checkout):
    text, calls = checkout.demo(GPUS="1", NO_CUDA="lacks")
    assert calls == ["install [cuda12]", "install", f"run cpu {RUN}"]
    assert "no wheel\n" in text
    assert (
        "JAX for CUDA could not be installed, so the CPU is used. The next start tries again;"
        " MEXJAX_GPU=0 does not.\n" in text
    )
    assert checkout.demo(GPUS="1", NO_CUDA="lacks", MEXJAX_GPU="0")[1] == [f"run cpu {RUN}"]
    assert checkout.demo(GPUS="1")[1] == ["install [cuda12]", f"run any {RUN}"]


def test_nothing_runs_where_nothing_can_be_installed(checkout):
    text, calls = checkout.demo(GPUS="1", NO_PIP="1", status=3)
    assert calls == ["install [cuda12]", "install"]
    assert text.count("The installation failed; pip's message is above.") == 2


def test_nothing_is_tried_twice_where_the_environment_cannot_be_made(checkout):
    (checkout.root / ".venv").write_text("in the way")
    text, calls = checkout.demo(GPUS="1", status=1)
    assert not calls and text.count("is in the way") == 1


# A command that heeds Ctrl-C also where the tests run in the background, which ignores it.
HEEDS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_an_interrupted_installation_is_not_taken_for_a_failed_one(checkout):
    """pip ends with a status of its own after Ctrl-C; the script must not go on without a GPU."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDS, str(BASH), str(checkout.root / "launch" / "demo.sh")],
        env=checkout.environment(GPUS="1", PIP_WAITS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while process.stdout.readline() != "ready\n":
        assert process.poll() is None
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "")
