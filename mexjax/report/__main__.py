"""`python -m mexjax.report`."""

from mexjax import cli
from mexjax.report.command import main

if __name__ == "__main__":
    cli.entry_point(main)
