"""The devices that programs are compiled for; by default those of this process."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices of one kind, which may be absent: `mexjax.gpu.targets` describes some.

    Attributes:
      devices: JAX's devices, or descriptions of devices from `jax.experimental.topologies`.
    """

    devices: tuple[Any, ...]

    @property
    def platform(self) -> str:
        """The platform as `jax.default_backend` names it: `cpu`, `gpu` or `tpu`."""
        # Descriptions of NVIDIA's devices name the platform of the plugin.
        name = self.devices[0].platform
        return "gpu" if name in ("cuda", "rocm") else name

    @property
    def kind(self) -> str:
        """The maker's name of the device."""
        return self.devices[0].device_kind


_current: contextvars.ContextVar[Target | None] = contextvars.ContextVar("target", default=None)


def current() -> Target:
    """The target of the innermost `use`, otherwise the devices of this process.

    The first call without `use` starts JAX's backend.
    """
    return _current.get() or Target(tuple(jax.local_devices()))


@contextlib.contextmanager
def use(target: Target) -> Iterator[Target]:
    """Trace and compile for `target` in a `with` block.

    What JAX has traced before is forgotten on both sides: it was traced for other devices.
    """
    token = _current.set(target)
    jax.clear_caches()
    try:
        yield target
    finally:
        _current.reset(token)
        jax.clear_caches()
