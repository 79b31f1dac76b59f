import pytest
import torch

from lsr_core import InputError
from lsr_core.teachers import CorrectedUniform, TargetGap, Uniform, WrongClasses, probabilities

LABELS = torch.tensor([[0, 3], [9, 1]])


@pytest.mark.parametrize("teacher", [Uniform(), WrongClasses(), CorrectedUniform(0.4), TargetGap(6.0)])
def test_teachers_are_distributions_with_their_share_on_the_label(teacher):
    q = probabilities(teacher, LABELS, 10, temperature=4.0, dtype=torch.float64)
    assert q.shape == (2, 2, 10)
    torch.testing.assert_close(q.sum(-1), torch.ones(2, 2, dtype=torch.float64))
    right = q.gather(-1, LABELS[..., None])[..., 0]
    torch.testing.assert_close(right, torch.full_like(right, teacher.share(10, 4.0)))


def test_the_lowest_correction_is_the_uniform_teacher():
    assert CorrectedUniform(0.1).share(10, 4.0) == Uniform().share(10, 4.0)
    assert TargetGap(0.0).share(10, 4.0) == pytest.approx(0.1)


@pytest.mark.parametrize("share", [-0.1, 0, 1.01, float("nan")])
def test_a_share_that_is_no_correction_is_refused(share):
    with pytest.raises(InputError, match="share is"):
        CorrectedUniform(share)


def test_a_share_below_the_uniform_one_is_refused_on_use():
    with pytest.raises(InputError, match=r"share is 0.05; with 10 classes it must be at least 1/10"):
        CorrectedUniform(0.05).share(10, 1.0)


def test_a_negative_gap_is_refused():
    with pytest.raises(InputError, match="gap is -1"):
        TargetGap(-1)
