"""Networks: those that can hold a stack of runs, and named ones for images."""

from .convnet import Convnet, StackedConvnet
from .images import ARCHITECTURES, Cost, ImageClassifier, ImageNetwork, cost
from .perceptron import Perceptron, StackedPerceptron

__all__ = ["ARCHITECTURES", "Convnet", "Cost", "ImageClassifier", "ImageNetwork", "Perceptron"]
__all__ += ["StackedConvnet", "StackedPerceptron", "cost"]
