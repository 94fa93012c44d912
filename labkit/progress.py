"""The command that regenerates PROGRESS.md and all tables of measured results (`lab progress`).

python -m labkit.progress            write what is out of date
python -m labkit.progress --check    exit 1 when something is
"""

import sys

from labkit.cli import main

if __name__ == "__main__":
    sys.exit(main(["progress", *sys.argv[1:]]))
