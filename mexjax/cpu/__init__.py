"""What XLA:CPU needs to be fast and small; nothing here changes a number."""

import jax


def is_cpu() -> bool:
    """Whether JAX computes on the CPU by default; the first call starts the backend."""
    return jax.default_backend() == "cpu"
