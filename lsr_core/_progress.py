"""Progress bars: in a terminal and in a notebook, quiet elsewhere."""

from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def bar(things: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A bar that appears after two seconds, shows what is running and the time left, and goes when it is done."""
    return tqdm(things, disable=None, delay=2, leave=False, dynamic_ncols=True, **options)
