"""`python -m sdtalk`: the command line."""

import sys

from sdtalk.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
