"""Make runs of the paper preset: `python -m study.paper GRID --budget-seconds N`, as `lsr_core.sweep` does others."""

import sys

from lsr_core.sweep import main

sys.exit(main())
