"""Speed and memory under XLA:CPU; nothing here changes a number, see `docs/performance.md`."""

import jax

__all__ = ["is_cpu"]


def is_cpu() -> bool:
    """True if JAX computes on the CPU by default; the first call starts the backend."""
    return jax.default_backend() == "cpu"
