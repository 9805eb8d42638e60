"""Matplotlib is imported whatever `MPLBACKEND` says.

A notebook names its own backend in `MPLBACKEND`, and every command that it starts inherits that.
Where the backend is not installed, `import matplotlib` fails, although pictures here are drawn
without any. Whoever draws, or imports a library that draws, calls `import_matplotlib` before.
"""

from __future__ import annotations

import contextlib
import os
import sys


def import_matplotlib() -> None:
    """Import matplotlib without `MPLBACKEND`, then take over the backend if it can be had."""
    backend = os.environ.get("MPLBACKEND")
    if "matplotlib" in sys.modules or not backend:
        return
    del os.environ["MPLBACKEND"]
    try:
        import matplotlib
    finally:
        os.environ["MPLBACKEND"] = backend
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = backend
