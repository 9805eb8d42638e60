"""`python -m mexjax.report`."""

import sys

from mexjax.report.command import main

if __name__ == "__main__":
    sys.exit(main())
