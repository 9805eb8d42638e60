"""`python -m mexjax.prepare`."""

import sys

from mexjax.prepare.command import main

if __name__ == "__main__":
    sys.exit(main())
