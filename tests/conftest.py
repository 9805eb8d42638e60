"""Four CPU devices for every test, programs compiled quickly, memory given back between files."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
from pathlib import Path

import jax
import jaxlib
import pytest

# Most of the time of a test goes into compiling. These flags have the same programs compiled to
# slower machine code, in a fifth of the time and a third of the memory.
QUICK_FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)


def known_flags(flags: tuple[str, ...]) -> list[str]:
    """The flags that this jaxlib knows: XLA ends the process at one that it does not know."""
    library = Path(jaxlib.__file__).with_name("libjax_common.so")
    if not library.is_file():
        return []
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return [flag for flag in flags if text.find(flag[2:].split("=")[0].encode()) >= 0]


# XLA reads its flags when the first device is asked for; processes that tests start inherit them.
os.environ["XLA_FLAGS"] = " ".join([*known_flags(QUICK_FLAGS), os.environ.get("XLA_FLAGS", "")])
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
