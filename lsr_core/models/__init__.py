"""Networks: those that can hold a stack of runs, named ones for images, and a Transformer for sentences."""

from .convnet import Convnet, StackedConvnet
from .images import ARCHITECTURES, Cost, ImageClassifier, ImageNetwork, cost
from .perceptron import Perceptron, StackedPerceptron
from .transformer import Transformer, Translator

__all__ = ["ARCHITECTURES", "Convnet", "Cost", "ImageClassifier", "ImageNetwork", "Perceptron"]
__all__ += ["StackedConvnet", "StackedPerceptron", "Transformer", "Translator", "cost"]
