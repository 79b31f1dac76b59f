"""What the live study costs, in times of the forecast's probe. Usage: quick_cost.py BOOK.

`LSR_STORE` holds the study's runs and no others; BOOK has the pages, executed once when all runs were there.
"""

import json
import sys
from pathlib import Path

from lsr_core.store import Store
from study import build


def cost(book: Path) -> dict[str, int]:
    """The number of runs; all their seconds, and those of the pages, over the probe's."""
    probe, seconds = build.probe(), [record.seconds for record in Store()]
    pages = sum(build.outcome(name, book).seconds for name in build.names())
    return {"runs": len(seconds), "training": round(sum(seconds) / probe), "pages": round(pages / probe)}


if __name__ == "__main__":
    build.COST.write_text(json.dumps(cost(Path(sys.argv[1]))) + "\n", encoding="utf-8")
