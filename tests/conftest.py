"""Four CPU devices for every test, programs compiled quickly and kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

# Most of the time goes into compiling. The programs are the same, only their machine code is
# optimised less. Before jax is imported, and for the processes that tests start.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}"

import jax
import pytest

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_threefry_partitionable", True)
_CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(
    Path(__file__).resolve().parent.parent / ".cache" / "xla"
)
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_file():
    """Compiled programs of a file are dropped after it: all of them together take many GiB."""
    yield
    jax.clear_caches()
