"""Analyses of datasets and of finished runs, one a module: `python -m mexjax.studies NAME`.

Each module has `main(argv: list[str]) -> int`, which prints tables and writes files and pictures.
"""
