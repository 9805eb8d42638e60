"""JAX's plugin for CUDA, left out of a command that cannot use it.

Where no driver is, for example on a login node or where programs are only compiled for a GPU, the
plugin's libraries write a dozen lines to standard error while JAX is imported, and its start fails
with a traceback. JAX goes on with the CPU all the same, as it does without the plugin. No level of
logging silences these lines, so that a command, which has them before its first line, does not load
the plugin there at all. A library never decides this for its user.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator

VERSIONS = ("12", "13")
# Files of a driver: on a server, under WSL, and on a Jetson.
_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg", "/dev/nvmap")
# What the lines about an absent driver have in them.
_COMPLAINTS = (b"Could not find cuda drivers", b"before absl::InitializeLog() is called")


class _State:
    """The state of this process.

    Attributes:
      lacks_driver: True if a plugin was left out because there is no driver.
    """

    lacks_driver = False


def leave_out_unused() -> None:
    """Keep JAX from loading its plugin for CUDA, if the process could not use it.

    JAX must not have been imported.
    """
    if "jax" in sys.modules:
        return
    names = [version for version in VERSIONS if _is_installed(f"jax_cuda{version}_plugin")]
    if not names:
        return
    is_wanted = _asks_for_cuda(os.environ.get("JAX_PLATFORMS", ""))
    if is_wanted and has_driver():
        return
    _State.lacks_driver = is_wanted
    for version in names:
        _leave_out(version)


def take_back() -> None:
    """Let JAX load its plugin after all: to compile for a GPU takes the plugin and no driver.

    JAX must not have been imported since it was left out.
    """
    for version in VERSIONS:
        if sys.modules.get(f"jax_cuda{version}_plugin", sys) is None:
            for name in (f"jax_cuda{version}_plugin", f"jax_plugins.xla_cuda{version}"):
                sys.modules.pop(name, None)
    _State.lacks_driver = False


@contextlib.contextmanager
def without_complaints() -> Iterator[None]:
    """Leave out what the plugin's libraries write about an absent driver in a `with` block.

    Other lines of standard error are written when the block ends.
    """
    try:
        place = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(place, 2)
            os.close(place)
            file.seek(0)
            for line in file:
                if not any(mark in line for mark in _COMPLAINTS):
                    os.write(2, line)


def lacks_driver() -> bool:
    """True if JAX for CUDA is installed and wanted, and was left out for want of a driver."""
    return _State.lacks_driver


def has_driver() -> bool:
    """True if a driver of NVIDIA's is here that has, or may have, a device."""
    if any(os.path.exists(sign) for sign in _SIGNS):
        return True
    # The library of the driver may load the driver itself, and may be here without it.
    try:
        return ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
    except (OSError, AttributeError):
        return False


def _asks_for_cuda(platforms: str) -> bool:
    """True if `$JAX_PLATFORMS` names no platform, and so all, or NVIDIA's among others."""
    names = {name.strip().lower() for name in platforms.split(",")} - {""}
    return not names or bool(names & {"cuda", "gpu"})


def _is_installed(package: str) -> bool:
    return package not in sys.modules and importlib.util.find_spec(package) is not None


def _leave_out(version: str) -> None:
    """Put modules without content into the places of a plugin's."""
    sys.modules[f"jax_cuda{version}_plugin"] = None  # pyright: ignore[reportArgumentType] # no such
    name = f"jax_plugins.xla_cuda{version}"
    plugin = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, None))
    vars(plugin)["initialize"] = lambda: None  # JAX calls it, and reports that it is not there
    sys.modules[name] = plugin
