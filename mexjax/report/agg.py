"""The parts of matplotlib that pictures are made of, whatever `MPLBACKEND` says.

A notebook names its own backend in `MPLBACKEND`, and every command that it starts inherits that.
Where the backend is not installed, `import matplotlib` fails, although pictures here are drawn
without any. Modules that draw import these names from here.
"""

from __future__ import annotations

import contextlib
import os
import sys


def _import_matplotlib() -> None:
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


_import_matplotlib()

from matplotlib import colormaps  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.collections import PolyCollection  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

__all__ = [
    "Axes",
    "Figure",
    "FigureCanvasAgg",
    "Line2D",
    "MaxNLocator",
    "PolyCollection",
    "colormaps",
]
