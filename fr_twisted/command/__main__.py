"""``python -m fr_twisted.command``."""

import sys

from fr_twisted.command.main import main

if __name__ == "__main__":
    sys.exit(main())
