"""Multi30k: captions of photographs in three languages (Elliott et al. 2016, 2017, task 1), cut into pieces of words.

The pieces are of a byte-pair encoding (Sennrich et al. 2016) that sentencepiece learns from both sides of the training
part.
"""

import gzip
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, require
from ..files import cache_folder, write_whole
from ._split import split_generator
from .download import archive, downloading
from .sentences import BEGIN, END, PAD, UNKNOWN, Sentences, up_to_end, wanted_of

SHORT = 8  # words a side, at most
PARTS = ("train", "val", "test_2016_flickr", "test_2017_flickr")
URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"


@dataclass(eq=False)
class Translation(Sentences):
    """Sentences of one language and their translations into another; the short ones have at most 8 words a side.

    Training and validation sentences are drawn by seed from the first two parts.
    """

    name: str
    sentences: int
    fingerprint: str
    classes: int = 2000

    validation = 300

    def __post_init__(self) -> None:
        _, source, target, *short = self.name.split("-")
        self.languages, self.counts = (source, target), (self.sentences,)
        self.words, self.length = (SHORT, 32) if short else (None, 80)
        self.input_dim = 3 * self.length

    @property
    def folder(self) -> Path:
        """Where its files should be."""
        return cache_folder("LSR_DATA", "data") / "multi30k"

    @cached_property
    def test(self) -> tuple[Tensor, Tensor, None]:
        examples = self.encoded(self.pairs(PARTS[2:]))
        return examples, wanted_of(examples), None

    def drawn(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        order = split_generator(seed).permutation(len(self._pool))
        examples = self._pool[torch.from_numpy(order[:count])]
        return examples, wanted_of(examples)

    def text(self, pieces: Iterable[int]) -> str:
        return self._processor.decode(up_to_end(pieces))

    @property
    def references(self) -> list[str]:
        """The translations of the test part, as people wrote them."""
        return [target for _, target in self.pairs(PARTS[2:])]

    def fetch(self) -> None:
        """Read the files, downloaded where they are missing; raises `InputError` where they are not right."""
        _ = self._pool

    def check(self) -> None:
        """Read the files; raises `InputError` where they are missing, damaged or others."""
        for language in self.languages:
            missing = [part for part in PARTS if not (self.folder / f"{part}.{language}").exists()]
            named = f"{missing[0]}.{language}" if missing else ""
            require(not missing, f"{self.folder} lacks {named}; `lsr data fetch {self.name}` downloads it")
        self.fetch()

    @cached_property
    def _pool(self) -> Tensor:
        found = self.encoded(self.pairs(PARTS[:2]))
        state = hashlib.sha256(found.numpy().tobytes() + self.test[0].numpy().tobytes()).hexdigest()[:16]
        right = f"remove {self.folder}, take the pinned sentencepiece, and start again"
        same = state == self.fingerprint and len(found) == self.sentences
        made = f"the study was made with {self.sentences} and {self.fingerprint}: {right}"
        require(same, f"{self.name} has {len(found)} sentences with fingerprint {state}; {made}")
        return found

    @cached_property
    def _processor(self) -> Any:
        sides = [lines(self.folder, language, PARTS[0]) for language in self.languages]
        return pieces([line for pair in zip(*sides, strict=True) for line in pair], self.classes)

    def pairs(self, parts: Iterable[str]) -> list[tuple[str, str]]:
        """The sentences of these parts that are short enough, with their translations."""
        found = []
        for part in parts:
            sides = [lines(self.folder, language, part) for language in self.languages]
            same = f"{part} has {len(sides[0])} lines in {self.languages[0]} and {len(sides[1])} in {self.languages[1]}"
            require(len(sides[0]) == len(sides[1]), f"{same}; a line is the other's translation: take whole files")
            found += [pair for pair in zip(*sides, strict=True) if self._fits(pair)]
        return found

    def _fits(self, pair: tuple[str, str]) -> bool:
        return self.words is None or max(len(side.split()) for side in pair) <= self.words

    def encoded(self, pairs: list[tuple[str, str]]) -> Tensor:
        """Examples int64 `[N, 3, L]`."""
        found = torch.full((len(pairs), 3, self.length), PAD)
        for row, (source, target) in zip(found, pairs, strict=True):
            given, wanted = self._processor.encode(source), self._processor.encode(target)
            longest = max(len(given), len(wanted)) + 1
            message = f"{self.name} has a sentence of {longest} pieces with its end: {source!r}"
            require(longest <= self.length, f"{message}; its length is {self.length}")
            for side, numbers in zip(row, ([*given, END], [BEGIN, *wanted], [*wanted, END]), strict=True):
                side[: len(numbers)] = torch.tensor(numbers)
        return found


def pieces(text: list[str], count: int) -> Any:
    """A processor with so many pieces, learnt from lines of text; raises `InputError` where they allow fewer."""
    try:
        import sentencepiece
    except ImportError:
        right = "pip install 'lsr-core[translation]' brings it"
        raise InputError(f"sentencepiece, which cuts sentences into pieces, is not installed; {right}") from None
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text), model_writer=model, vocab_size=count, model_type="bpe", num_threads=1,
            character_coverage=1.0, pad_id=PAD, bos_id=BEGIN, eos_id=END, unk_id=UNKNOWN, minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        raise InputError(f"{count} pieces cannot be learnt from {len(text)} lines ({error}); take fewer") from None
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@cache
def lines(folder: Path, language: str, part: str) -> list[str]:
    """The sentences of a part, downloaded where the file is missing; raises `InputError` for an empty one."""
    path = folder / f"{part}.{language}"
    if not path.exists():
        packed_name = f"{path.name}.gz"
        with downloading(f"multi30k's {path.name}", folder, packed_name), TemporaryDirectory(dir=folder) as place:
            packed = archive(f"{URL}/{packed_name}", Path(place))
            write_whole(path, gzip.decompress(packed.read_bytes()))
    try:
        found = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); take the whole file of Multi30k's task 1") from None
    empty = next((number for number, line in enumerate(found, 1) if not line.strip()), None if found else 1)
    require(empty is None, f"{path} has no sentence in line {empty}; take the whole file of Multi30k's task 1")
    return found
