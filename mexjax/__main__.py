"""The command `python -m mexjax`, which is the console script `mexjax`."""

from __future__ import annotations

from mexjax import signals


def entry_point() -> None:
    """Run the command as this process."""
    signals.begin()  # before the imports, which take a while
    from mexjax import main

    main.entry_point()


if __name__ == "__main__":
    entry_point()
