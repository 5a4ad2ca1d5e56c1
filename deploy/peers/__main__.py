"""`python -m deploy.peers`."""

import sys

from deploy.peers.command import main

if __name__ == "__main__":
    sys.exit(main())
