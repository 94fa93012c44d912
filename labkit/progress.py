"""The command that regenerates tables of measured results; the same as `lab progress`.

python -m labkit.progress            PROGRESS.md
python -m labkit.progress --sheets   and the tables in the READMEs
python -m labkit.progress --check    exit 1 when something is out of date
"""

import sys

from labkit.cli import main

if __name__ == "__main__":
    sys.exit(main(["progress", *sys.argv[1:]]))
