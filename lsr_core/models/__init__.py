"""Networks: those that can hold a stack of runs, and named ones for images."""

from .convnet import Convnet, StackedConvnet
from .cost import Cost, cost
from .images import ARCHITECTURES, ImageClassifier, ImageNetwork
from .perceptron import Perceptron, StackedPerceptron

__all__ = ["ARCHITECTURES", "Convnet", "Cost", "ImageClassifier", "ImageNetwork", "Perceptron"]
__all__ += ["StackedConvnet", "StackedPerceptron", "cost"]
