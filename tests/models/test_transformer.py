"""The Transformer, its search for a translation, and runs that translate."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from made_language import NAME
from torch.nn.functional import cross_entropy, linear

from lsr_core import InputError, objective
from lsr_core.data.sentences import BEGIN, END, PAD, wanted_of
from lsr_core.execute import execute
from lsr_core.models import ImageNetwork, Perceptron, Transformer
from lsr_core.run import ExactPosterior, Run, TrainedTeacher, run_of
from lsr_core.schedule import Schedule
from lsr_core.store import Store
from lsr_core.trainer import Trainer

SMALL = Transformer(16, 1, 2)
SCHEDULE = Schedule(0.01, 0.0, epochs=2, batch_size=128, curve="inverse-root", warmup=1, optimizer="adam")
CLASSES, LENGTH = 7, 4


def network(classes=CLASSES, length=LENGTH, sizes=SMALL, scale=1.0):
    built = sizes.build(length, classes, torch.Generator().manual_seed(0)).eval()
    built.pieces.weight.data *= scale
    return built


def some_examples(count=5, length=LENGTH):
    """Sentences of one piece and more."""
    random = torch.Generator().manual_seed(1)
    examples = torch.full((count, 3, length), PAD)
    for number, row in enumerate(examples):
        pieces = torch.randint(3, CLASSES, (1 + number % (length - 1),), generator=random)
        for side, values in zip(row, ([*pieces, END], [BEGIN, *pieces], [*pieces, END]), strict=True):
            side[: len(values)] = torch.tensor(values)
    return examples


def run(method="cross-entropy", role="student", seed=0, sizes=SMALL, **others):
    return Run(NAME, 100, objective(method, **others.pop("constants", {})), SCHEDULE, seed, sizes, role, **others)


@torch.no_grad()
def test_losses_are_those_of_an_ordinary_loop_over_padded_sentences():
    own, examples = network().double(), some_examples()
    logits = own(examples)
    padded = torch.zeros(*examples[:, 2].shape, CLASSES, dtype=torch.float64)
    padded[examples[:, 2] != PAD] = logits
    for epsilon in (0.0, 0.1):
        theirs = cross_entropy(padded.mT, examples[:, 2], ignore_index=PAD, label_smoothing=epsilon)
        ours = objective("lsr", epsilon=epsilon)(logits, wanted_of(examples)).total
        ours = ours + epsilon * math.log(CLASSES)  # the divergence from the uniform teacher lacks its entropy
        assert float(ours) == pytest.approx(float(theirs), rel=1e-12)


def test_neither_padding_nor_other_sentences_nor_later_pieces_matter():
    own, examples = network().double(), some_examples()
    together = own(examples)
    alone = torch.cat([own(example[None]) for example in examples])
    torch.testing.assert_close(alone, together)
    changed = examples[-1:].clone()
    changed[0, 1, 2:] = 4  # what is given from the third place on
    torch.testing.assert_close(own(changed)[:2], own(examples[-1:])[:2])
    changed[0, 0, 0] = 7 - changed[0, 0, 0]
    assert not torch.allclose(own(changed)[:2], own(examples[-1:])[:2])


def scored(own, source, pieces):
    """The mean log-probability of a translation's pieces."""
    example = torch.full((1, 3, LENGTH), PAD)
    example[0, 0] = source
    example[0, 1, : len(pieces)] = torch.tensor([BEGIN, *pieces[:-1]])
    example[0, 2, : len(pieces)] = torch.tensor(pieces)
    logits = linear(own.decode(own.encode(example[:, 0]), example[:, 0], example[:, 1]), own.pieces.weight)[0]
    return logits.log_softmax(-1)[range(len(pieces)), pieces].mean().item()


@torch.no_grad()
def test_a_wide_beam_finds_the_likeliest_of_all_translations():
    own, examples = network(scale=3.0).double(), some_examples(3)
    said = [piece for piece in range(CLASSES) if piece not in (PAD, BEGIN, END)]
    every = [[*pieces, END] for n in range(LENGTH) for pieces in product(said, repeat=n)]
    every += [list(pieces) for pieces in product(said, repeat=LENGTH)]
    found = own.translate(examples[:, 0], beam=CLASSES**3)
    for source, row in zip(examples[:, 0], found.tolist(), strict=True):
        best = max(every, key=lambda pieces: scored(own, source, pieces))
        assert row[: len(best)] == best
        assert all(piece == PAD for piece in row[len(best) :])


@torch.no_grad()
def test_greedy_decoding_says_the_likeliest_piece_each_time():
    own, examples = network(scale=3.0), some_examples(3)
    for source, row in zip(examples[:, 0], own.translate(examples[:, 0]).tolist(), strict=True):
        said = row[: row.index(END) + 1] if END in row else row
        example = torch.full((1, 3, LENGTH), PAD)
        example[0, 0], example[0, 1, : len(said)] = source, torch.tensor([BEGIN, *said[:-1]])
        example[0, 2, : len(said)] = 3
        logits = own(example)
        logits[:, [PAD, BEGIN]] = -torch.inf  # which no translation says
        assert logits.argmax(-1).tolist() == said


def test_what_is_dropped_comes_from_the_networks_own_stream():
    own, examples = network(sizes=replace(SMALL, dropout=0.5)).train(), some_examples()
    own.generator.manual_seed(5)
    torch.manual_seed(0)
    first, second, after = own(examples), own(examples), torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    own.generator.manual_seed(5)
    assert torch.equal(own(examples), first)
    assert not torch.equal(first, second)


def test_a_step_leaves_nothing_behind_for_devices_that_are_not_in_use(monkeypatch):
    waiting = []
    for device in (torch.cuda, torch.mtia, torch.xpu):  # each notes the call, with its trace
        monkeypatch.setattr(device, "manual_seed_all", waiting.append)
    network(sizes=replace(SMALL, dropout=0.5)).train()(some_examples())
    assert waiting == []


def test_networks_are_drawn_from_their_generators_alone():
    first, again = network(), network()
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    assert first.places[0].tolist() == [0.0, 1.0] * 8
    assert sum(parameter.numel() for parameter in first.parameters()) == sum(
        [CLASSES * 16, 3 * (4 * 16 * 16 + 4 * 16), 2 * (2 * 16 * 64 + 64 + 16), 7 * 2 * 16]
    )  # one embedding; three attentions; two feed-forward layers; seven norms


@pytest.mark.usefixtures("sentences")
def test_batches_have_about_as_many_pieces_as_asked_for_and_all_sentences_once():
    trainer = Trainer([run()])
    batches = list(trainer.data.batches(128))
    assert len(batches) == -(-len(trainer.data.labels) // 128)
    assert max(len(batch.labels) for batch in batches) < 128 + 32
    seen = torch.cat([batch.inputs for batch in batches])
    assert sorted(map(tuple, seen.flatten(1).tolist())) == sorted(
        map(tuple, trainer.data.sentences.flatten(1).tolist())
    )
    assert all(torch.equal(batch.labels, wanted_of(batch.inputs)) for batch in batches)
    assert all(torch.equal(trainer.data.labels[batch.index], batch.labels) for batch in batches)


@pytest.mark.usefixtures("sentences")
def test_runs_that_translate_are_measured_and_kept(own_store):
    teacher = TrainedTeacher(run(role="teacher", sizes=Transformer(16, 2, 2)))
    arms = [
        run(),
        run("lsr"),
        run("kd", teacher=teacher, constants={"alpha": 0.5, "temperature": 2.0}),
        run("soft-only", teacher=teacher),
        run("ladder-permuted", teacher=teacher),
        run(targets=teacher),
    ]
    records = execute(arms, own_store)
    for record in records:
        assert 0 < record.metrics["bleu"] <= 100
        assert {"bleu_beam", "chrf", "chrf_beam", "ece", "nll_scaled"} <= record.metrics.keys()
        assert record.provenance["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
        assert run_of(record.run).key == record.key
    assert [record.provenance["stack"] for record in records] == [1, 1, 3, 3, 3, 1]
    assert records[2].metrics["train_soft_nll"] > 0
    assert len({record.metrics["nll"] for record in records}) == len(records)


@pytest.mark.usefixtures("sentences")
def test_students_of_translations_learn_what_their_translator_says():
    trainer = Trainer([run(role="teacher")])
    trainer.train()
    arm = run(targets=TrainedTeacher(run(role="teacher")))
    student = Trainer([arm], targets=trainer.weights(0))
    said = trainer.network.networks[0].translate(student.data.sentences[:8, 0], 4)
    wanted = student.data.sentences[:8, 2]
    for row, own in zip(said.tolist(), wanted.tolist(), strict=True):
        assert own[: own.index(END)] == row[: row.index(END)] if END in row else row[: len(own) - 1]
    assert torch.equal(student.data.split.test_labels, trainer.data.split.test_labels)


@pytest.mark.usefixtures("sentences")
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one():
    whole, first = Trainer([run("lsr")]), Trainer([run("lsr")])
    first.train_epoch()
    resumed = Trainer([run("lsr")])
    resumed.load_state_dict(first.state_dict())
    resumed.evaluate()
    whole.train_epoch()
    whole.evaluate()
    assert resumed.train()[0].metrics == whole.train()[0].metrics


@pytest.mark.usefixtures("sentences")
def test_equal_networks_have_one_key():
    whole, real = (run(sizes=replace(SMALL, dropout=share)) for share in (0, 0.0))
    assert whole == real
    assert whole.key == real.key


@pytest.mark.usefixtures("sentences")
def test_keys_of_other_runs_have_no_targets():
    assert "targets" not in run().canonical()
    assert run(targets=TrainedTeacher(run(role="teacher"))).key != run().key


@pytest.mark.usefixtures("sentences")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run(sizes=Perceptron()), f"{NAME} holds sentences, which .* cannot take; give a Transformer"),
        (lambda: Run("digits", 100, objective("lsr"), Schedule(0.1), network=SMALL), "digits holds vectors, which"),
        (lambda: replace(run(), schedule=replace(SCHEDULE, batch_size=20)), "batch_size is 20; a sentence has up to"),
        (lambda: run("mrkd"), "method 'mrkd' has soft labels that change, or that need the whole"),
        (lambda: run("ladder-class-means", teacher=TrainedTeacher(run(role="t"))), "'ladder-class-means' has soft"),
        (lambda: run("kd", teacher=TrainedTeacher(replace(run(role="t"), data="multi30k-en-de-short"))),
         "the teacher was trained on multi30k-en-de-short, which has other inputs or classes"),
        (lambda: run(targets=ExactPosterior()), r"targets is ExactPosterior\(\); give the TrainedTeacher"),
        (lambda: replace(run(), schedule=replace(SCHEDULE, head_decay=0.1)), "head_decay is of a last layer with"),
        (lambda: Trainer([run(targets=TrainedTeacher(run(role="t")))]), "targets does not fit the runs"),
        (lambda: network().translate(some_examples()[:, 0], 0), "beam is 0"),
        (lambda: Run("digits", 100, objective("lsr"), Schedule(0.1), targets=TrainedTeacher(run(role="t"))),
         "targets are translations; digits holds vectors"),
        (lambda: run(targets=TrainedTeacher(run())), "translator and student share the streams of seed 0"),
        (lambda: Transformer(20, 1, 4), "width is 20; it must be a multiple of 8, twice the heads"),
        (lambda: Schedule(0.1, curve="inverse-root"), "warmup is 0; the curve 'inverse-root' falls from its end"),
        (lambda: run(sizes=ImageNetwork("resnet8")), "cannot take; give a Transformer"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.usefixtures("sentences")
def test_a_made_language_is_learnt(tmp_path):
    longer = replace(SCHEDULE, epochs=20, warmup=4)
    (record,) = execute([replace(run(sizes=Transformer(32, 1, 2)), schedule=longer)], Store(tmp_path / "own"))
    assert record.metrics["bleu"] > 60
    assert record.metrics["bleu_beam"] > 60
