"""`python -m mexjax.studies`."""

from mexjax import signals

if __name__ == "__main__":
    signals.begin()  # before the imports, which take a while

    from mexjax import cli
    from mexjax.studies.command import main

    cli.entry_point(main)
