"""Lets ``python -m gateway`` do what ``taximeter`` does; must never do anything else."""

import sys

from gateway.cli import main

if __name__ == "__main__":
    sys.exit(main())
