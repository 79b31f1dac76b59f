"""Networks that can hold a stack of runs."""

from .convnet import Convnet, StackedConvnet
from .perceptron import Perceptron, StackedPerceptron

__all__ = ["Convnet", "Perceptron", "StackedConvnet", "StackedPerceptron"]
