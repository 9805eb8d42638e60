"""The folder of a run becomes numbers, tables and figures, without JAX and without a model.

`write.write_report(folder)` does it all; `compare` sets several runs side by side. The modules are
imported one by one, because some bring matplotlib and pandas.
"""

__all__ = [
    "agg",
    "agreement",
    "command",
    "compare",
    "feature_figures",
    "figures",
    "files",
    "results",
    "stats",
    "sweep",
    "tables",
    "text",
    "unit_figures",
    "write",
    "zero_shot",
]
