"""What ds01d costs, beside what the machine takes at least: `make bench`, or with --help.

Only the start; the work is in the modules beside it.
"""

import sys
from pathlib import Path

# In the place of this folder, where `bench` would be this file.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.run import main  # noqa: E402 - the line above says where it is
from simulation.signals import own_signals  # noqa: E402

if __name__ == "__main__":
    own_signals()
    sys.exit(main())
