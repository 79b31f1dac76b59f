"""Networks: those that can hold a stack of runs, named ones for images, and a Transformer for sentences."""

from .binary_perceptron import BinaryPerceptron, StackedBinaryPerceptron
from .convnet import Convnet, StackedConvnet
from .images import ARCHITECTURES, Cost, ImageClassifier, ImageNetwork, cost
from .perceptron import Perceptron, StackedPerceptron
from .transformer import Transformer, Translator

__all__ = ["ARCHITECTURES", "BinaryPerceptron", "Convnet", "Cost", "ImageClassifier", "ImageNetwork", "Perceptron"]
__all__ += ["StackedBinaryPerceptron", "StackedConvnet", "StackedPerceptron", "Transformer", "Translator", "cost"]
