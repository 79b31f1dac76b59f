"""Progress bars: in a terminal and in a notebook, quiet elsewhere."""

import os
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def bar(things: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A bar that appears after two seconds, shows what is running and the time left, and goes when it is done.

    tqdm's own `TQDM_DISABLE` silences it; the book's notebooks run that way.
    """
    silent = bool(os.environ.get("TQDM_DISABLE"))
    return tqdm(things, disable=silent or None, delay=2, leave=False, dynamic_ncols=True, **options)
