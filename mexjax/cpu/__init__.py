"""Speed and memory under XLA:CPU: nothing here changes a number (`docs/performance.md`).

Modules are imported one by one.
"""

from mexjax import target

__all__ = ["heap", "is_cpu", "ordering", "sums"]


def is_cpu() -> bool:
    """True if programs are compiled for a CPU, see `mexjax.target`."""
    return target.current().platform == "cpu"
