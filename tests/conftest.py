"""Devices and programs of the tests; memory is given back between files."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from device_helpers import settings


def known_flags(flags: tuple[str, ...]) -> list[str]:
    """The flags that this jaxlib knows, found by trying: XLA ends a process at an unknown one."""
    if _is_known(" ".join(flags)):
        return list(flags)
    return [flag for flag in flags if _is_known(flag)]


def _is_known(flags: str) -> bool:
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    return done.returncode == 0


SETTINGS = settings(os.environ.get("JAX_PLATFORMS", ""))
# XLA reads its flags when the first device is asked for. Processes that tests start, and workers of
# the test run, inherit them and need not try again.
if "MEXJAX_QUICK_FLAGS" not in os.environ:
    os.environ["MEXJAX_QUICK_FLAGS"] = " ".join(known_flags(SETTINGS.flags))
    os.environ["XLA_FLAGS"] = (
        f"{os.environ['MEXJAX_QUICK_FLAGS']} {os.environ.get('XLA_FLAGS', '')}"
    )
for _name, _value in SETTINGS.variables.items():
    os.environ.setdefault(_name, _value)
for _name, _value in SETTINGS.options.items():
    jax.config.update(_name, _value)
_CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(
    Path(__file__).resolve().parent.parent / ".cache" / "xla"
)
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
_LIBC = ctypes.CDLL(None)


def pytest_sessionstart() -> None:
    """Refuse to test the CPU in the name of another platform."""
    platforms = SETTINGS.options["jax_platforms"]
    if platforms.split(",")[0] != "cpu" and _backend() in ("", "cpu"):
        pytest.exit(f"JAX has no device for the first of JAX_PLATFORMS={platforms}.", 4)


def _backend() -> str:
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError):
        return ""


@pytest.fixture(scope="module", autouse=True)
def _memory_of_one_file():
    """Compiled programs of a file are dropped after it, and free memory goes to the system."""
    yield
    free_memory()


@pytest.fixture(autouse=True)
def _memory_of_one_slow_test(request: pytest.FixtureRequest):
    """The same after every slow test, since whole networks hold gigabytes."""
    yield
    if request.node.get_closest_marker("slow"):
        free_memory()


def free_memory() -> None:
    """Drop compiled programs and give free memory to the system."""
    jax.clear_caches()
    gc.collect()
    if hasattr(_LIBC, "malloc_trim"):  # glibc
        _LIBC.malloc_trim(0)
