"""The made language: its posterior is the one that it is drawn from."""

import pytest
import torch

from lsr_core import objective
from lsr_core.data import Language, dataset
from lsr_core.data._split import fingerprint
from lsr_core.data.sentences import BEGIN, END, PAD, wanted_of
from lsr_core.models import Transformer
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from lsr_core.trainer import Trainer

SOURCE = Language()
FIRST_RARE = 23


def test_it_is_the_language_that_the_study_was_made_with():
    found = fingerprint(SOURCE.drawn(0, 100)[0].numpy(), SOURCE.test[0].numpy())
    assert found == SOURCE.fingerprint == dataset("language").fingerprint


def test_sentences_are_words_and_each_is_translated_by_one_of_its_two():
    examples, labels = SOURCE.drawn(0, 1000)
    source, given, wanted = examples.unbind(1)
    assert torch.equal(labels, wanted_of(examples))
    assert ((source == END).int().argmax(-1) == (wanted == END).int().argmax(-1)).all()
    assert (given[:, 0] == BEGIN).all()
    is_word = (source != PAD) & (source != END)
    assert set((wanted - source)[is_word].tolist()) == {10, 20}
    assert set(is_word.sum(-1).tolist()) == {2, 3, 4, 5}
    assert torch.equal(SOURCE.drawn(0, 10)[0], examples[:10])


def test_the_posterior_is_that_of_the_draws():
    examples, labels = SOURCE.drawn(1, 20_000)
    posterior = SOURCE.posterior(examples)
    torch.testing.assert_close(posterior.sum(-1), torch.ones(len(labels), dtype=torch.float64))
    given = examples[:, 1][examples[:, 2] != PAD]
    for after_rare in (False, True):
        rows = (labels != END) & ((given >= FIRST_RARE) == after_rare)
        share = (labels[rows] >= FIRST_RARE).double().mean().item()
        expected = posterior[rows][:, FIRST_RARE:].sum(-1)
        assert expected.tolist() == pytest.approx([0.8 if after_rare else 0.2] * int(rows.sum()))
        assert share == pytest.approx(expected[0].item(), abs=4 * (0.16 / int(rows.sum())) ** 0.5)
    assert (posterior[labels == END, END] == 1).all()


def test_a_network_comes_near_the_truth_and_its_distance_is_measured(own_store):  # noqa: ARG001
    schedule = Schedule(0.01, 0.0, epochs=20, batch_size=64, curve="inverse-root", warmup=3, optimizer="adam")
    run = Run("language", 600, objective("cross-entropy"), schedule, 0, Transformer(32, 1, 2, 0.0))
    metrics = Trainer([run]).train()[0].metrics
    assert metrics["kl_posterior"] < 0.2
    assert metrics["nll"] > 0.35  # of the truth itself: the entropy of its choices
    assert metrics["bleu"] > 20
