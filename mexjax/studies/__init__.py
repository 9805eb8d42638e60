"""Analyses of datasets and of finished runs, one a module: `python -m mexjax.studies NAME`.

The modules `ac4au_tables`, `au`, `keyframes` and `magnify` have `main(argv: list[str]) -> int`,
which prints tables and writes files and pictures. `compile_command` is `mexjax compile`; the other
modules hold parts of these.
"""

__all__ = [
    "ac4au_tables",
    "annotated_clips",
    "au",
    "au_figures",
    "au_statistics",
    "command",
    "compile_command",
    "keyframes",
    "keyframes_figures",
    "magnify",
    "options",
]
