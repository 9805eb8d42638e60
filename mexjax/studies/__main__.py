"""`python -m mexjax.studies`."""

import sys

from mexjax.studies.command import main

if __name__ == "__main__":
    sys.exit(main())
