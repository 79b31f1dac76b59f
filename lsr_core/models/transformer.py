"""A Transformer that translates: encoder and decoder with pre-norm, one embedding for both languages and the output.

Sources: Vaswani et al. (2017), pre-norm as in Xiong et al. (2020), tied embeddings as in Press and Wolf (2017).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..data.sentences import BEGIN, END, PAD
from ..errors import hold_plain, require, require_count, require_fraction
from ._base import Network


@dataclass(frozen=True)
class Transformer(Network):
    """The description of a Transformer: its width, layers a side, heads, and the share of numbers that are dropped.

    A feed-forward layer is four times as wide. Raises `InputError` for a width that the heads do not divide.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1

    name = "transformer"
    takes = "sentences"
    is_shared = True

    def __post_init__(self) -> None:
        hold_plain(self)
        for size in ("width", "layers", "heads"):
            require_count(size, getattr(self, size))
        require_fraction("dropout", self.dropout)
        object.__setattr__(self, "dropout", float(self.dropout))
        whole = self.width % (2 * self.heads) == 0
        require(whole, f"width is {self.width}; it must be a multiple of {2 * self.heads}, twice the heads")

    def build(self, length: int, classes: int, generator: torch.Generator) -> "Translator":
        """The network for sentences of up to `length` of `classes` pieces, with weights drawn from the generator."""
        with torch.device("meta"):
            network = Translator(self, length, classes)
        network.to_empty(device=generator.device)
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.constant_(parameter, float("norm" in name and name.endswith("weight")))
        network.places.copy_(positions(length, self.width))
        return network


class Translator(nn.Module):
    """Examples `[B, 3, L]` of `data.Sentences` to logits `[M, K]`, one row for each piece wanted.

    What is dropped in training is drawn from `generator`.
    """

    def __init__(self, sizes: Transformer, length: int, classes: int) -> None:
        super().__init__()
        self.generator, self.width = torch.Generator(), sizes.width
        self.pieces = nn.Embedding(classes, sizes.width)
        self.register_buffer("places", torch.empty(length, sizes.width), persistent=False)
        self.dropped = nn.Dropout(sizes.dropout)
        shape = (sizes.width, sizes.heads, 4 * sizes.width, sizes.dropout)
        own = {"batch_first": True, "norm_first": True}
        encoder, decoder = nn.TransformerEncoderLayer(*shape, **own), nn.TransformerDecoderLayer(*shape, **own)
        norms = (nn.LayerNorm(sizes.width) for _ in range(2))
        self.encoder = nn.TransformerEncoder(encoder, sizes.layers, next(norms), enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, sizes.layers, next(norms))

    @property
    def head(self) -> list[nn.Parameter]:
        """What the last layer has of its own: nothing."""
        return []

    def forward(self, examples: Tensor) -> Tensor:
        return linear(self.penultimate(examples), self.pieces.weight)

    def penultimate(self, examples: Tensor) -> Tensor:
        """What the last layer reads, `[M, H]`."""
        longest = int((examples != PAD).any(1).any(0).sum())
        source, given, wanted = examples[..., :longest].unbind(1)
        where = examples.device
        with torch.random.fork_rng([where] if examples.is_cuda else [], enabled=self.training):
            if self.training:
                own = torch.cuda.default_generators[where.index] if examples.is_cuda else torch.default_generator
                own.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))  # `torch.manual_seed` leaks
            return self.decode(self.encode(source), source, given)[wanted != PAD]

    def encode(self, source: Tensor) -> Tensor:
        """What the decoder attends to, `[B, L, H]`, of sources `[B, L]`."""
        return self.encoder(self._embedded(source), src_key_padding_mask=source == PAD)

    def decode(self, memory: Tensor, source: Tensor, given: Tensor) -> Tensor:
        """What the last layer reads at each place `[B, L, H]`."""
        length = given.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=given.device).triu(1)
        hidden = source == PAD
        return self.decoder(self._embedded(given), memory, later, memory_key_padding_mask=hidden)

    def _embedded(self, numbers: Tensor) -> Tensor:
        return self.dropped(self.pieces(numbers) * math.sqrt(self.width) + self.places[: numbers.shape[1]])

    @torch.no_grad()
    def translate(self, source: Tensor, beam: int = 1) -> Tensor:
        """The likeliest pieces `[B, L']` that a beam of so many finds for sources `[B, L]`; one is greedy decoding.

        The log-probability of a translation is divided by its number of pieces, so that short ones are not preferred.
        The network must be in evaluation mode.
        """
        require_count("beam", beam)
        source = source[:, : int((source != PAD).any(0).sum())]
        many, length = len(source), len(self.places)
        rows = source.repeat_interleave(beam, 0)
        memory = self.encode(source).repeat_interleave(beam, 0)
        found = torch.full((many, beam, 1), BEGIN, device=source.device)
        totals = torch.zeros(many, beam, device=source.device)
        totals[:, 1:] = -torch.inf  # all begin alike
        lengths = torch.zeros_like(totals)
        for _ in range(length):
            over = (found == END).any(-1)
            if over.all():
                break
            features = self.decode(memory, rows, found.flatten(0, 1))[:, -1]
            steps = linear(features, self.pieces.weight).log_softmax(-1).unflatten(0, (many, beam))
            steps[..., [PAD, BEGIN]] = -torch.inf
            steps[over] = -torch.inf
            steps[..., PAD] = steps[..., PAD].where(~over, 0)  # what is over goes on with nothing
            sums = totals[..., None] + steps
            counts = (lengths + ~over)[..., None].expand_as(sums)
            _, chosen = (sums / counts).flatten(1).topk(beam)
            parent, piece = chosen // steps.shape[-1], chosen % steps.shape[-1]
            totals, lengths = (values.flatten(1).gather(1, chosen) for values in (sums, counts))
            found = torch.cat([found.gather(1, parent[..., None].expand_as(found)), piece[..., None]], -1)
        return found[:, 0, 1:]


def positions(length: int, width: int) -> Tensor:
    """Sines and cosines of each place, `[L, H]` (Vaswani et al. 2017, section 3.5)."""
    places = torch.arange(length)[:, None]
    angles = places / 10_000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
