"""A made language whose translations are a matter of chance and context, with a known posterior."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ._split import split_generator
from .sentences import BEGIN, END, PAD, Sentences, up_to_end, wanted_of

WORDS, LONGEST = 10, 5  # of the source language; words of a sentence, of which it has 2 or more
USUAL = 0.8  # the probability of the translation that the context prefers
_TEST, _TEST_SEED = 500, 20200911
_SOURCE, _COMMON, _RARE = (END + 1 + WORDS * language for language in range(3))  # the first word of each kind


class Language(Sentences):
    """Ten words, each with a common and a rare translation.

    After a common translation, and at the beginning, the next word has its common one with a probability of .8; after a
    rare one it has its rare one as often. So a translation's posterior is known, piece by piece, and never certain
    but at the end.
    """

    name = "language"
    classes = END + 1 + 3 * WORDS
    length = LONGEST + 1
    input_dim = 3 * length
    counts = (100_000,)
    validation = 100
    fingerprint = "938fbc28ccca2f31"

    @property
    def test(self) -> tuple[Tensor, Tensor, Tensor]:
        examples = _sampled(_TEST, np.random.default_rng(_TEST_SEED))
        return examples, wanted_of(examples), self.posterior(examples)

    @property
    def references(self) -> list[str]:
        """The translations of the test part."""
        return [self.text(row) for row in self.test[0][:, 2].tolist()]

    def drawn(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        examples = _sampled(count, split_generator(seed))
        return examples, wanted_of(examples)

    def text(self, pieces: Iterable[int]) -> str:
        return " ".join(f"w{piece}" for piece in up_to_end(pieces))

    def posterior(self, examples: Tensor) -> Tensor:
        """The probability float64 `[M, K]` of each piece, given the source and the pieces before it."""
        source, given, wanted = examples.unbind(1)
        after_rare = given >= _RARE
        found = torch.zeros(*wanted.shape, self.classes, dtype=torch.float64)
        for first, is_usual in ((_COMMON, ~after_rare), (_RARE, after_rare)):
            share = (1 - USUAL) + (2 * USUAL - 1) * is_usual.double()
            found.scatter_(-1, (source - _SOURCE + first).clamp_min(0)[..., None], share[..., None])
        found[source == END] = torch.eye(self.classes, dtype=torch.float64)[END]
        return found[wanted != PAD]


def _sampled(count: int, generator: np.random.Generator) -> Tensor:
    """So many examples int64 `[N, 3, L]`; of more, the first ones are the same."""
    drawn = torch.from_numpy(generator.random((count, 1 + 2 * LONGEST)))
    lengths = (2 + drawn[:, :1] * (LONGEST - 1)).long()
    words, is_usual = (drawn[:, 1 : LONGEST + 1] * WORDS).long(), drawn[:, LONGEST + 1 :] < USUAL
    is_rare = (~is_usual).long().cumsum(-1) % 2  # each unusual translation changes the context
    examples = torch.full((count, 3, LONGEST + 1), PAD)
    is_word = torch.arange(LONGEST) < lengths
    translated = words + torch.where(is_rare.bool(), _RARE, _COMMON)
    examples[:, 0, :LONGEST] = (words + _SOURCE).where(is_word, PAD)
    examples[:, 1, 0] = BEGIN
    examples[:, 1, 1:] = examples[:, 2, :LONGEST] = translated.where(is_word, PAD)
    for side in (0, 2):
        examples[:, side].scatter_(1, lengths, END)
    return examples
