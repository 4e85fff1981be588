"""A fuzzer of every reader: made-up files are changed and read in processes that may die."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "data"))  # where files of clips are made up
