"""Networks that can hold a stack of runs."""

from .perceptron import Perceptron, StackedPerceptron

__all__ = ["Perceptron", "StackedPerceptron"]
