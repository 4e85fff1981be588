"""``python -m mmcl VERB …``."""

from mmcl.cli import main

if __name__ == "__main__":
    main()
