"""``python -m graphcheck``."""

import sys

from graphcheck.cli import main

if __name__ == "__main__":
    sys.exit(main())
