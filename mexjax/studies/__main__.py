"""`python -m mexjax.studies`."""

from mexjax import cli
from mexjax.studies.command import main

if __name__ == "__main__":
    cli.entry_point(main)
