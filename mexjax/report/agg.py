"""The parts of matplotlib that pictures are made of, for the modules that draw.

No backend is needed for them, so `MPLBACKEND` does not matter, see `mexjax.plotting`.
"""

from __future__ import annotations

from mexjax.plotting import import_matplotlib

import_matplotlib()

import matplotlib  # noqa: E402
from matplotlib import colormaps  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.collections import PolyCollection  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.text import Text  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

__all__ = [
    "Axes",
    "Figure",
    "FigureCanvasAgg",
    "Line2D",
    "MaxNLocator",
    "PolyCollection",
    "Text",
    "colormaps",
    "matplotlib",
]
