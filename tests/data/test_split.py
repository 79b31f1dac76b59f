import numpy as np

from lsr_core.data._split import split_generator, stratified_order


def test_a_stratified_order_has_every_row_once_and_every_piece_in_proportion():
    labels = np.repeat([0, 1, 2], [600, 300, 100])[np.random.default_rng(0).permutation(1000)]
    order = stratified_order(labels, split_generator(0))
    assert sorted(order) == list(range(1000))
    for start, stop in ((0, 10), (0, 137), (100, 300), (901, 1000)):
        counts = np.bincount(labels[order[start:stop]], minlength=3)
        np.testing.assert_allclose(counts, (stop - start) * np.array([0.6, 0.3, 0.1]), atol=3)


def test_equal_classes_are_exactly_equal():
    labels = np.arange(120) % 4
    order = stratified_order(labels, split_generator(1))
    assert np.bincount(labels[order[:40]]).tolist() == [10] * 4
    assert np.bincount(labels[order[40:60]]).tolist() == [5] * 4


def test_the_generator_decides_and_every_row_can_come_first():
    labels = np.arange(8) % 2
    first = [stratified_order(labels, split_generator(seed))[0] for seed in range(200)]
    assert set(first) == set(range(8))
    again = [stratified_order(labels, split_generator(5)).tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_a_class_without_rows_is_no_trouble():
    assert sorted(stratified_order(np.array([0, 2, 2]), split_generator(0))) == [0, 1, 2]
