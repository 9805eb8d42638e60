"""What tests need to know about the devices that they run on: settings, tolerances, skips.

`JAX_PLATFORMS=cuda python -m pytest` runs the suite on a GPU; without the variable it runs on four
devices of the CPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import pytest

# Most of the time of a test goes into compiling. These flags have the same programs compiled to
# slower machine code, in a fifth of the time and a third of the memory.
QUICK_FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)
# Sums of a GPU may be made in any order; tests compare runs byte for byte.
GPU_FLAGS = ("--xla_gpu_deterministic_ops=true",)

# A GPU adds in other orders, and cuDNN takes transforms for some convolutions. The factor is an
# estimate: no device has measured it. What is allowed for bfloat16 is wide enough for both.
GPU_FACTOR, WIDEST = 10.0, 1e-2


class Settings(NamedTuple):
    """The settings of a test run.

    Attributes:
      flags: flags of XLA.
      variables: environment variables, which processes that tests start inherit.
      options: options of JAX.
    """

    flags: tuple[str, ...]
    variables: dict[str, str]
    options: dict[str, Any]


def settings(platforms: str) -> Settings:
    """The settings for a value of `JAX_PLATFORMS`; the first platform is the one that is tested."""
    names = [name for name in platforms.replace(" ", "").lower().split(",") if name] or ["cpu"]
    options = {"jax_threefry_partitionable": True, "jax_num_cpu_devices": 4}
    if names[0] == "cpu":
        return Settings(QUICK_FLAGS, {}, options | {"jax_platforms": ",".join(names)})
    # Some tests compare with the CPU.
    options["jax_platforms"] = ",".join(dict.fromkeys([*names, "cpu"]))
    # Golden numbers are of float32, which a GPU would round to TF32 before it multiplies.
    options["jax_default_matmul_precision"] = "highest"
    variables = {
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        # The tests and the processes that they start share the memory.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    return Settings(GPU_FLAGS if names[0] in ("cuda", "gpu") else (), variables, options)


def slack(value: float, platform: str | None = None) -> float:
    """A bound for errors of float32 numbers on a platform.

    Args:
      value: the bound on the CPU, relative or absolute.
      platform: `cpu`, `gpu` or another; None: the one that is tested.
    """
    if (platform or jax.default_backend()) == "cpu":
        return value
    return max(value, min(GPU_FACTOR * value, WIDEST))


def needs_devices(count: int) -> pytest.MarkDecorator:
    """A mark of tests that are skipped where fewer devices are."""
    return pytest.mark.skipif(
        len(jax.local_devices()) < count, reason=f"fewer than {count} devices are here"
    )


def needs_cpu() -> pytest.MarkDecorator:
    """A mark of tests about programs for the CPU."""
    return pytest.mark.skipif(jax.default_backend() != "cpu", reason="a test of the CPU")
