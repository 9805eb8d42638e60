"""Four CPU devices for every test, programs compiled quickly, memory given back between files."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

# Most of the time of a test goes into compiling. These flags have the same programs compiled to
# slower machine code, in a fifth of the time and a third of the memory.
QUICK_FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)


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


# XLA reads its flags when the first device is asked for. Processes that tests start, and workers of
# the test run, inherit them and need not try again.
if "MEXJAX_QUICK_FLAGS" not in os.environ:
    os.environ["MEXJAX_QUICK_FLAGS"] = " ".join(known_flags(QUICK_FLAGS))
    os.environ["XLA_FLAGS"] = (
        f"{os.environ['MEXJAX_QUICK_FLAGS']} {os.environ.get('XLA_FLAGS', '')}"
    )
_CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(
    Path(__file__).resolve().parent.parent / ".cache" / "xla"
)
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_threefry_partitionable", True)
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
_LIBC = ctypes.CDLL(None)


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
