"""The code of the book: what is compared, what is claimed, how it is judged and shown.

Importing it adds the networks and data sets of the paper preset to those of `lsr_core`.
"""

from . import paper

__all__ = ["paper"]
