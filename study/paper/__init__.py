"""The paper preset: importing it adds its networks and data sets to those of `lsr_core`; `grid` has its runs."""

from . import data, networks

__all__ = ["data", "networks"]
