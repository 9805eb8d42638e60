"""The command `python -m mexjax`, which is the console script `mexjax`."""

from mexjax.main import entry_point

if __name__ == "__main__":
    entry_point()
