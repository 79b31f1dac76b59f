import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from lsr_core import InputError, objective
from lsr_core.data import DATASETS, Gtzan, dataset
from lsr_core.data._split import fingerprint
from lsr_core.data.gtzan import FOLDS
from lsr_core.data.registry import source_of
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from lsr_core.trainer import train


def features_and_labels():
    """A made-up table of GTZAN's size, in which rows 100 g and 100 g + 1 are copies, and 50 and 150 are, too."""
    random = np.random.default_rng(0)
    features = random.normal(5, 3, (1000, 57))
    features[1::100] = features[::100]
    features[150] = features[50] + 1e-3
    return features, np.arange(1000) // 100


@pytest.fixture
def table(monkeypatch):
    features, labels = features_and_labels()
    monkeypatch.setattr(Gtzan, "fingerprint", fingerprint(features, labels))
    save(features, labels)
    monkeypatch.setitem(DATASETS, "gtzan", Gtzan("gtzan"))  # the named one keeps what it read
    source_of.cache_clear()
    yield features, labels
    source_of.cache_clear()


def save(features, labels, **others):
    path = Gtzan("gtzan").path
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, features=features, labels=labels, **{"class_names": np.array(list("abcdefghij")), **others})


def places(table, source, split):
    """Rows of the table that the three parts are."""
    features, _ = table
    pool = np.flatnonzero(source.folds != source.fold)
    standardised = (features - features[pool].mean(0)) / features[pool].std(0)
    parts = (split.train_inputs, split.validation_inputs, split.test_inputs)
    return [cdist(part.numpy(), standardised).argmin(1) for part in parts]


@pytest.mark.parametrize("fold", range(FOLDS))
def test_parts_are_disjoint_stratified_and_whole(table, fold):
    source = Gtzan(f"gtzan/fold-{fold}", fold)
    split = source.split(720, 3)
    labels = (split.train_labels, split.validation_labels, split.test_labels)
    assert [part.bincount().tolist() for part in labels] == [[72] * 10, [8] * 10, [20] * 10]
    copies = places(table, source, split)  # a copy of a row is found as the first of the two
    assert len(set(copies[0]) & set(copies[1])) == len(set(copies[0]) & set(copies[2])) == 0
    assert len(set(copies[1]) & set(copies[2])) == 0
    assert sorted(set(np.concatenate(copies))) == sorted(set(range(1000)) - set(range(1, 1000, 100)))


@pytest.mark.slow
def test_versions_lie_in_one_part_in_every_draw(table):
    source = Gtzan("gtzan")
    assert source.folds[50] == source.folds[150]
    for seed in range(10):
        in_part = [{50, 150} & set(part) for part in places(table, source, source.split(720, seed))]
        assert sorted(map(len, in_part)) == [0, 0, 2]


def test_folds_are_a_partition_and_the_first_is_the_plain_name(table):
    folds = [Gtzan(f"gtzan/fold-{fold}", fold) for fold in range(FOLDS)]
    tested = [places(table, source, source.split(1, 0))[2] for source in folds]
    assert sum(len(set(part)) for part in tested) == 990  # ten copies
    assert len(set(np.concatenate(tested))) == 990
    plain, first = Gtzan("gtzan").split(300, 1), folds[0].split(300, 1)
    assert torch.equal(plain.train_inputs, first.train_inputs)


@pytest.mark.usefixtures("table")
def test_the_seed_draws_training_and_validation_and_leaves_the_test_part():
    source = Gtzan("gtzan/fold-2", 2)
    first, again, other = (source.split(300, seed) for seed in (0, 0, 1))
    assert torch.equal(first.train_inputs, again.train_inputs)
    assert torch.equal(first.test_inputs, other.test_inputs)
    assert not torch.equal(first.train_inputs, other.train_inputs)
    assert not torch.equal(first.validation_inputs, other.validation_inputs)
    assert first.train_labels.bincount().tolist() == [30] * 10
    assert torch.equal(source.split(720, 0).train_inputs[:300], first.train_inputs)


@pytest.mark.usefixtures("table")
def test_features_are_standardised_by_what_is_not_for_testing():
    split = Gtzan("gtzan").split(720, 0)
    pool = torch.cat([split.train_inputs, split.validation_inputs])
    assert split.train_inputs.dtype == torch.float32
    torch.testing.assert_close(pool.mean(0), torch.zeros(57), atol=1e-5, rtol=0)
    torch.testing.assert_close(pool.std(0, correction=0), torch.ones(57))
    assert split.test_inputs.mean(0).abs().max() > 1e-3


@pytest.mark.usefixtures("table")
def test_a_perceptron_trains_on_it():
    (outcome,) = train([Run("gtzan", 100, objective("lsr"), Schedule(0.05, epochs=2), seed=0)])
    assert outcome.diverged_at is None
    assert 0 <= outcome.metrics["accuracy"] <= 1


def test_a_missing_table_is_one_sentence_that_says_what_and_where():
    message = r"put its table at .*gtzan\.npz, an \.npz file with features float64 \[1000, 57\], labels int64"
    for use in (Gtzan("gtzan").fetch, Gtzan("gtzan").check, lambda: Gtzan("gtzan").split(1, 0)):
        with pytest.raises(InputError, match=message):
            use()


def test_another_table_is_refused(table):
    features, labels = table
    features[7, 7] += 1
    save(features, labels)
    with pytest.raises(InputError, match=r"gtzan\.npz has fingerprint .*; the study was made with"):
        Gtzan("gtzan").check()
    np.savez(Gtzan("gtzan").path, features=features)
    with pytest.raises(InputError, match="has no class_names, labels; it must hold features"):
        Gtzan("gtzan").check()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gtzan/first-5",
            "'gtzan/first-5' cannot be: gtzan has no parts, because copies of a track must stay together",
        ),
        ("gtzan/fold-1/stratified", "cannot be: gtzan has no parts"),
        ("gtzan/fold-5", "unknown data set 'gtzan/fold-5'; there are .*gtzan/fold-4"),
        ("gtzan/fold", "unknown part '/fold' of data set 'gtzan'"),
    ],
)
def test_names_that_cannot_be_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        dataset(name)


@pytest.mark.slow
def test_the_real_table(unpacked, monkeypatch):
    """Known copies across genres and within one lie in one part in every draw, and no genre is short anywhere."""
    monkeypatch.setenv("LSR_DATA", str(unpacked("gtzan")))
    for fold in range(FOLDS):
        source = Gtzan(f"gtzan/fold-{fold}", fold)
        names = np.load(source.path)["track_names"]
        row = {name: place for place, name in enumerate(names)}
        pairs = [("metal.00058.0.wav", "rock.00016.0.wav"), ("pop.00054.0.wav", "pop.00060.0.wav")]
        for one, two in pairs:
            assert source.folds[row[one]] == source.folds[row[two]]
        for seed in range(4):
            split = source.split(720, seed)
            labels = (split.train_labels, split.validation_labels, split.test_labels)
            assert [part.bincount().tolist() for part in labels] == [[72] * 10, [8] * 10, [20] * 10]
            nearest = cdist(split.train_inputs, torch.cat([split.validation_inputs, split.test_inputs])).min()
            assert nearest > 1.5  # copies are at 0
