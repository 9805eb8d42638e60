"""The entry point of `python -m mexjax.prepare`."""

from mexjax import cli
from mexjax.prepare.command import main

if __name__ == "__main__":
    cli.entry_point(main)
