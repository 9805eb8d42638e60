"""Choices of a configuration about numbers and launches, as JAX and XLA take them."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import jax
from ml_collections import ConfigDict

from mexjax.errors import ConfigError
from mexjax.gpu.compiling import graph_options
from mexjax.target import Target

log = logging.getLogger(__name__)

# XLA takes no operation whose result depends on the order in which threads end, and the first
# algorithm of a product or convolution instead of the one that was fastest in a trial: a trial may
# end otherwise when a run goes on.
_DETERMINISTIC = {
    "xla_gpu_exclude_nondeterministic_ops": True,
    "xla_gpu_deterministic_ops": True,
}


def dtype_of(config: ConfigDict) -> str:
    """The type that the network computes in, `float32` or `bfloat16`."""
    return "bfloat16" if config.precision == "bfloat16" else "float32"


def is_exact(config: ConfigDict) -> bool:
    """True if products of float32 numbers are not rounded to TF32 on any device."""
    return config.precision == "highest"


def use_precision(config: ConfigDict) -> contextlib.AbstractContextManager[None]:
    """Trace with the precision of a configuration in a `with` block.

    Apart from `highest`, JAX's own setting stays, which `check_numerics` looks at.
    """
    return jax.default_matmul_precision("highest") if is_exact(config) else contextlib.nullcontext()


def compile_options(config: ConfigDict, target: Target) -> dict[str, Any]:
    """The options of XLA for the programs of a run; a CPU needs none.

    Args:
      config: the whole configuration.
      target: the devices that the programs are for.
    """
    if target.platform != "gpu":
        return {}
    return graph_options(config.gpu.graphs) | (_DETERMINISTIC if config.deterministic else {})


def check_numerics(config: ConfigDict, target: Target) -> None:
    """Refuse choices that have no effect on the devices, and tell of a setting that counts instead.

    `precision=highest` and `deterministic=true` promise something that a CPU keeps anyway.

    Args:
      config: the whole configuration.
      target: the devices of the run.

    Raises:
      ConfigError: CUDA graphs are asked for, and the devices are no GPUs.
    """
    if config.gpu.graphs != "default" and target.platform != "gpu":
        raise ConfigError(
            f"gpu.graphs={config.gpu.graphs} has no effect on {target.kind}: it acts on a GPU."
            " Leave it at default here; a run that was begun on a GPU goes on with either."
        )
    # JAX defines the attributes of its configuration when it runs.
    other = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    if target.platform == "gpu" and config.precision == "tf32" and other is not None:
        log.warning(
            "JAX's own setting jax_default_matmul_precision=%s counts instead of precision=tf32,"
            " and the record of the run does not say so. Unset JAX_DEFAULT_MATMUL_PRECISION, or set"
            " precision=highest for products that are not rounded.",
            other,
        )
