"""Losses that are a user's own, through the trainer and the store."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from lsr_core import InputError, objective
from lsr_core.execute import execute
from lsr_core.losses import divergence
from lsr_core.models import Perceptron
from lsr_core.objectives import Batch, Objective
from lsr_core.objectives.hand_made import LSR
from lsr_core.objectives.learned import KD
from lsr_core.run import Run, TrainedTeacher
from lsr_core.schedule import Schedule
from lsr_core.sweep import write_grid

SCHEDULE = Schedule(0.1, epochs=2)
TEACHER = TrainedTeacher(
    Run("digits", 50, objective("cross-entropy"), SCHEDULE, network=Perceptron((8,)), role="teacher")
)


@dataclass(frozen=True, kw_only=True)
class OwnKD(Objective):
    """KD, written anew."""

    name: ClassVar[str] = "own-kd"
    takes_teacher: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True
    alpha: float = 0.5
    temperature: float = 4.0

    def soft(self, batch: Batch) -> torch.Tensor:
        return divergence(self.required_teacher(batch) / self.temperature, batch.logits, self.temperature)


class Shrinking:
    """A term that shrinks the logits, beside another method's divergence."""

    size: float

    def soft(self, batch: Batch) -> torch.Tensor:
        return super().soft(batch) + self.size * batch.logits.square().mean(-1)


@dataclass(frozen=True, kw_only=True)
class MoreKD(Shrinking, KD):
    """KD with that term."""

    name: ClassVar[str] = "more-kd"
    size: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MoreLSR(Shrinking, LSR):
    """Label smoothing with that term."""

    name: ClassVar[str] = "more-lsr"
    size: float = 0.0


def trained(method, teacher=None):
    """The likelihoods of two seeds, in one stack."""
    runs = Run("digits", 50, method, SCHEDULE, teacher=teacher).runs(range(2))
    return torch.tensor([record.metrics["nll"] for record in execute(runs)])


def test_a_loss_that_needs_a_teacher_gets_it():
    constants = {"alpha": 0.5, "temperature": 4.0}
    torch.testing.assert_close(
        trained(OwnKD(), TEACHER), trained(objective("kd", **constants), TEACHER), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize(
    ("own", "library", "teacher", "size"), [(MoreKD, "kd", TEACHER, 0.001), (MoreLSR, "lsr", None, 1.0)]
)
def test_a_term_of_its_own_is_trained(own, library, teacher, size):
    torch.testing.assert_close(trained(own(), teacher), trained(objective(library), teacher), rtol=1e-4, atol=0)
    assert (trained(own(size=size), teacher) - trained(own(), teacher)).abs().min() > 1e-5
    logits, labels = torch.randn(2, 5, 10), torch.randint(10, (2, 5))
    losses = [one(logits, labels, logits.flip(0) if teacher else None).total for one in (own(), own(size=1.0))]
    assert (losses[1] > losses[0]).all()


def test_a_run_with_other_code_has_another_key():
    """Wherever its class stands, as in a notebook's cell."""
    text = """
from dataclasses import dataclass
@dataclass(frozen=True, kw_only=True)
class Own(Objective):
    name = "own"
    alpha: float = 0.5
    def soft(self, batch):
        return 1.0 * batch.logits.square().mean(-1)
"""
    texts = [text, f"first = 1{text}", text.replace("1.0 *", "50.0 *"), text.replace("square", "abs")]
    keys = [Run("digits", 50, of_code(own), SCHEDULE, 0).key for own in texts]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    sets = [text.replace("alpha", f"kept = frozenset({values})\n    alpha") for values in ([0, 8], [8, 0], [0, 9])]
    keys = [Run("digits", 50, of_code(own), SCHEDULE, 0).key for own in sets]
    assert keys[0] == keys[1] != keys[2]


def of_code(text):
    names = {}
    exec(f"from lsr_core.objectives import Objective\nfrom lsr_core.objectives.hand_made import LSR\n{text}", names)
    return names["Own"]()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Own(Objective): name = 'lsr'", "Own is called 'lsr', as a method of the library is; rename it"),
        ("class Own(Objective): pass", "Own has no name; give it one"),
        ("class Own(LSR): name = 'own'", "Own is no dataclass; decorate it by @dataclass"),
    ],
)
def test_what_a_record_could_not_be_told_by_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        Run("digits", 50, of_code(text), SCHEDULE, 0)


def test_a_grid_holds_no_code(tmp_path):
    with pytest.raises(InputError, match="method 'more-lsr' is a class of your own, and a grid holds no code"):
        write_grid([Run("digits", 50, MoreLSR(), SCHEDULE, 0)], tmp_path / "grid")


def test_a_divergence_of_another_shape_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Own(MoreLSR):
        def soft(self, batch: Batch) -> torch.Tensor:
            return batch.logits

    right = r"soft of method 'more-lsr' has shape \[5, 10\]; it must be one of each example, \[5\]"
    with pytest.raises(InputError, match=right):
        Own()(torch.randn(5, 10), torch.randint(10, (5,)))
