"""How well a trained network translates, by sacrebleu (Post 2018) on the test part's sentences as people read them."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .data.sentences import PAD, Sentences
from .errors import InputError
from .models import Translator

BEAM = 4
_ROWS = 256  # sentences at a time


def translated(network: Translator, sentences: Tensor, beam: int) -> Tensor:
    """The pieces `[N, L']` that a network says for sources `[N, L]`."""
    rows = [network.eval().translate(few, beam) for few in sentences.split(_ROWS)]
    longest = max(row.shape[-1] for row in rows)
    return torch.cat([pad(row, (0, longest - row.shape[-1]), value=PAD) for row in rows])


def translation_metrics(network: Translator, source: Sentences, sentences: Tensor) -> dict[str, float]:
    """BLEU (Papineni et al. 2002) and chrF (Popović 2015) in percent, greedily and by a beam of four.

    `sentences` `[N, L]` are the test part's.
    """
    found, references = {}, source.references
    for name, beam in {"": 1, "_beam": BEAM}.items():
        texts = [source.text(row) for row in translated(network, sentences, beam).tolist()]
        for metric, judge in _judges().items():
            found[f"{metric}{name}"] = judge.corpus_score(texts, [references]).score
    return found


@cache
def signatures() -> dict[str, str]:
    """What sacrebleu says of each metric, for records: version, tokenisation, smoothing."""
    judges = _judges()
    for judge in judges.values():
        judge.corpus_score(["a"], [["a"]])  # before which it has no signature
    return {f"{metric}_signature": str(judge.get_signature()) for metric, judge in judges.items()}


def _judges() -> dict[str, Any]:
    """The metrics by name; raises `InputError` where sacrebleu is not installed."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        right = "pip install 'lsr-core[translation]' brings it"
        raise InputError(f"sacrebleu, which judges translations, is not installed; {right}") from None
    return {"bleu": BLEU(), "chrf": CHRF()}
