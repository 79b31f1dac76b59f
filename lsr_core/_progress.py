"""Progress bars: in a terminal and in a notebook, quiet elsewhere."""

import os
from collections.abc import Iterable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

try:
    from tqdm.auto import tqdm
except ImportError:  # a bare machine, on which `sweep` prints a line a seed
    tqdm = None


def bar(things: Iterable[Any] | None = None, **options: Any) -> Any:
    """A bar that appears after two seconds, shows what is running and the time left, and goes when it is done.

    tqdm's own `TQDM_DISABLE` silences it; the book's notebooks run that way.
    """
    if tqdm is None:
        ignored = SimpleNamespace(update=lambda *_: None, set_description=lambda *_, **__: None)
        return nullcontext(ignored) if things is None else things
    silent = bool(os.environ.get("TQDM_DISABLE"))
    return tqdm(things, disable=silent or None, delay=2, leave=False, dynamic_ncols=True, **options)
