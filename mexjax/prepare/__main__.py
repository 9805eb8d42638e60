"""The entry point of `python -m mexjax.prepare`."""

from mexjax import signals

if __name__ == "__main__":
    signals.begin()  # before the imports, which take a while

    from mexjax import cli
    from mexjax.prepare.command import main

    cli.entry_point(main)
