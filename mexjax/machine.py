"""The machine a run is on: compilation cache, cores, and the environment for `results.json`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
import psutil

from mexjax import plugins
from mexjax.errors import ConfigError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def use_compilation_cache(folder: str | Path | None = None) -> Path:
    """Keep compiled programs on disk, so that a second run starts at once.

    Args:
      folder: the place; by default `$JAX_COMPILATION_CACHE_DIR`, else `~/.cache/mexjax/xla`.

    Returns:
      The folder.

    Raises:
      ConfigError: see `devices`.
    """
    devices()
    folder = folder or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    path = Path(folder).expanduser() if folder else Path.home() / ".cache" / "mexjax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return path


def programs_folder() -> Path | None:
    """The folder of kept programs in JAX's compilation cache; None where JAX keeps nothing."""
    settings = jax.config.values
    folder = settings["jax_compilation_cache_dir"]
    is_on = bool(folder) and settings["jax_enable_compilation_cache"]
    return Path(folder) / "programs" if is_on else None


def devices() -> list[Any]:
    """The devices of this process.

    Raises:
      ConfigError: there are none, or none of the platform that `$JAX_PLATFORMS` names.
    """
    try:
        return jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        text = " ".join(str(error).split())[:200].rstrip(".")
        reason = f" JAX says: {text}." if text else ""
        if plugins.lacks_driver():
            reason = " JAX for CUDA is installed, but no NVIDIA driver is found."
        if not platforms:
            raise ConfigError(f"JAX found no device to compute on.{reason}") from error
        raise ConfigError(
            f"JAX_PLATFORMS={platforms} asks for devices that this machine or this installation of"
            f" JAX does not have.{reason} Unset JAX_PLATFORMS, or set it to cpu."
        ) from error


def environment() -> dict[str, Any]:
    """Versions, devices, processor and commit, for `results.json`."""
    local = devices()
    return {
        "python": platform.python_version(),
        **{name.replace("-", "_"): importlib.metadata.version(name) for name in PACKAGES},
        "devices": [device.device_kind for device in local],
        "platform": local[0].platform,
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "git": git_commit(),
    }


def num_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_bytes() -> int:
    """Memory that is available to this process, in bytes."""
    return psutil.virtual_memory().available


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def git_commit() -> str:
    """The commit of the package, with `-dirty` after changes; empty outside a checkout."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
