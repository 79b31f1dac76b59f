"""Sentences and their translations as whole numbers: pieces, one of `END` at the end, and `PAD` up to one length."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import pad

from ._split import Source, Split

PAD, BEGIN, END, UNKNOWN = range(4)


class Sentences(Source):
    """A data set of sentences of up to `length` pieces, of which there are `classes`.

    An example is `[3, L]`: the source; the translation that the network is given, from `BEGIN` on; and the pieces that
    it wants, up to `END`. Labels `[M]` are the pieces wanted, of one sentence after the other: each is an example of
    the loss, and padding is none. `references` are the test part's translations as people read them.
    """

    length: int
    kind = "sentences"
    references: list[str]

    def text(self, pieces: Iterable[int]) -> str:
        """The sentence of these pieces, up to the first `END`."""
        raise NotImplementedError

    def split(self, train: int, seed: int) -> Split:
        examples, _ = self.drawn(seed, self.validation + self.size(train))
        parts = examples[self.validation :], examples[: self.validation]
        return Split(*(tensor for part in parts for tensor in (part, wanted_of(part))), *self.test)


def wanted_of(examples: Tensor) -> Tensor:
    """The labels `[M]` of examples `[N, 3, L]`: the pieces wanted, without padding."""
    wanted = examples[:, 2]
    return wanted[wanted != PAD]


def up_to_end(pieces: Iterable[int]) -> list[int]:
    """The pieces before the first `END`."""
    kept = list(pieces)
    return kept[: kept.index(END)] if END in kept else kept


def with_targets(examples: Tensor, found: Tensor) -> Tensor:
    """Examples `[N, 3, L]` with other translations, pieces `[N, L']` up to the first `END` or to the whole length."""
    length = examples.shape[-1]
    wanted = pad(found, (0, max(0, length - found.shape[-1])), value=PAD)[:, :length].clone()
    wanted[:, -1] = END
    is_end = wanted == END
    wanted[is_end.cumsum(-1) - is_end.int() > 0] = PAD
    given = pad(wanted[:, :-1], (1, 0), value=BEGIN)
    given[given == END] = PAD
    return torch.stack([examples[:, 0], given, wanted], 1)
