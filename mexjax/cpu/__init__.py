"""Speed and memory under XLA:CPU: nothing here changes a number (`docs/performance.md`).

Modules are imported one by one.
"""

import jax

__all__ = ["heap", "is_cpu", "ordering", "sums"]


def is_cpu() -> bool:
    """True if JAX computes on the CPU by default; the first call starts the backend."""
    return jax.default_backend() == "cpu"
