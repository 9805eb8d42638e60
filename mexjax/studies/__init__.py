"""Analyses of datasets and of finished runs, one a module: `python -m mexjax.studies NAME`.

The modules `ac4au_tables`, `au`, `keyframes` and `magnify` have `main(argv: list[str]) -> int`,
which prints tables and writes files and pictures; the other modules hold their parts.
"""

__all__ = [
    "ac4au_tables",
    "annotated_clips",
    "au",
    "au_figures",
    "au_statistics",
    "command",
    "keyframes",
    "keyframes_figures",
    "magnify",
    "options",
]
