"""Named data sets: training and validation examples drawn by seed, one fixed test set."""

from ._split import Source, Split
from .digits import Digits
from .download import Download
from .gtzan import Gtzan
from .images import Images
from .language import Language
from .mixture import Mixture
from .registry import DATASETS, dataset
from .sentences import Sentences
from .subset import Subset
from .translation import Translation

__all__ = ["DATASETS", "Digits", "Download", "Gtzan", "Images", "Language", "Mixture", "Sentences"]
__all__ += ["Source", "Split", "Subset", "Translation", "dataset"]
