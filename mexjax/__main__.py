"""`python -m mexjax`: the same as the console script `mexjax`."""

from mexjax.main import entry_point

if __name__ == "__main__":
    entry_point()
