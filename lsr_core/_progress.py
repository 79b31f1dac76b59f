"""Progress bars: in a terminal and in a notebook, quiet elsewhere."""

import os
from collections.abc import Iterable
from typing import Any

try:
    from tqdm.auto import tqdm as Bar
except ImportError:  # a bare machine, on which only `sweep` runs and prints a line now and then

    class Bar:  # type: ignore[no-redef]
        """A bar that nobody sees."""

        def __init__(self, things: Iterable[Any] | None = None, **_: Any) -> None:
            self._things, self.n = things, 0

        def __iter__(self) -> Any:
            return iter(self._things)

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, count: int = 1) -> None:
            """Count on."""
            self.n += count

        def set_description(self, *_: Any, **__: Any) -> None:
            """Say nothing."""


def bar(things: Iterable[Any] | None = None, **options: Any) -> Bar:
    """A bar that appears after two seconds, shows what is running and the time left, and goes when it is done.

    tqdm's own `TQDM_DISABLE` silences it; the book's notebooks run that way.
    """
    silent = bool(os.environ.get("TQDM_DISABLE"))
    return Bar(things, disable=silent or None, delay=2, leave=False, dynamic_ncols=True, **options)
