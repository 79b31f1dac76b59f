"""Memory that tensors leave stays with the process for the next ones."""

import ctypes
from contextlib import suppress
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h's numbers
_MOST = 2**28


@cache
def keep_freed_memory() -> None:
    """Let the C library hand freed blocks of up to 256 MiB out again rather than return them to the system.

    Otherwise measuring gets its large pages back from the system, zeroed, every time. Another C library than glibc is
    left as it is.
    """
    with suppress(AttributeError, OSError, TypeError):
        for threshold in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(threshold, _MOST)
