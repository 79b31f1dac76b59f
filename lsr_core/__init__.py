"""Label smoothing and knowledge distillation: the losses, teachers, metrics and trainers of one study."""

from .errors import InputError
from .losses import Loss
from .objectives import METHODS, objective

__all__ = ["METHODS", "InputError", "Loss", "objective"]
__version__ = "0.1.0"
