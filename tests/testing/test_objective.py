"""Each contract of an objective detects its own violation and no other."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Outputs
from instil.items import Items
from instil.objectives.features.fitnet import FitNet
from instil.testing import check_objective, loss_and_gradient, sample_outputs
from instil.testing.objective import CONTRACTS
from instil.testing.structures import make_strided


class ImagesOnly(FitNet):
    """Objective whose card declares all grids but that rejects 3-D features."""

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        if teacher.ndim == 5:
            raise ValueError("images only")
        return super().loss(student, teacher, connection)


class Sound(Objective):
    """Half the squared difference; each broken class differs in one way."""

    card = Card("sound", finite_logits=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.of(student["logits"], teacher["logits"])

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean(1)


class LogOfSoftmax(Sound):
    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (teacher.softmax(1) * (teacher.softmax(1).log() - student.softmax(1).log())).sum(1)


class InfiniteGradient(Sound):
    """Objective with a finite value and an infinite gradient."""

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().sum(1).clamp_max(1e6) + torch.where(
            student.amax(1) > 1e3, (student * 0).sum(1).sqrt(), 0.0
        )


class Deaf(Sound):
    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return 0 * student.sum(1) + teacher.square().sum(1) * 0


class NotZero(Sound):
    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().of(student, teacher) + 1


class ChangesTheTeacher(Sound):
    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().of(
            student - student.mean(1, keepdim=True), teacher.sub_(teacher.mean(1, keepdim=True))
        )


class Ordered(Sound):
    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().of(student, teacher) * torch.linspace(0.5, 1.5, len(student))


class BatchMean(Sound):
    """Objective that centres over the batch without a declaration on its card."""

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().of(student - student.mean(0), teacher - teacher.mean(0)) + super().of(
            student, teacher
        )


class SumOfAll(Sound):
    """Objective that returns the sum instead of the mean, which grows with the batch."""

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().of(student, teacher).sum()


class CountsAll(Sound):
    def weight(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch["index"]))


class CountsTheUnlabelled(Sound):
    items = Items(labelled=True)

    def weight(self, batch: Batch) -> Tensor:
        return self.items.all_weights(batch)


class HearsTheUncounted(Sound):
    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().of(student, teacher)

    def weight(self, batch: Batch) -> Tensor:
        return super().weight(batch) + 1e-2


class DiscardsTooLate(Sound):
    """Objective whose adapter reads uncounted items; only their values are discarded."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Linear(7, 7, bias=False)
        nn.init.eye_(self.adapter.weight)

    def item_mask(self, batch: Batch) -> Tensor | None:
        return None

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().of(self.adapter(student), teacher)


class ReadsPadding(Objective):
    """Objective that multiplies values of padding by zero after an adapter."""

    card = Card("padding", tasks=("text_classification",))
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("hidden_states",),))
    items = Items(per_sample=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_hidden, teacher_hidden = student["hidden_states"][-1], teacher["hidden_states"][-1]
        mask = batch["attention_mask"]
        apart = (student_hidden.square().mean(-1) - teacher_hidden.square().mean(-1)).square()
        return torch.where(mask > 0, apart, 0.0).sum(1) / mask.sum(1)


class AnotherTask(Sound):
    """Objective that does not replace uncounted items for stages of one width."""

    card = Card("another task", tasks=("classification", "segmentation"))

    def item_mask(self, batch: Batch) -> Tensor | None:
        return super().item_mask(batch) if batch["label"].ndim == 1 else None

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean(-1)


class OneIsNoVariance(Sound):
    card = Card("one", couples=True)

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student.var(0) - teacher.var(0)).square().sum()


class WantsContiguous(Sound):
    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().of(student.as_strided(student.shape, (student.shape[1], 1)), teacher)


class MovesInForward(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        self.seen.add_(1)
        return super().of(student, teacher)


class KeepsTooMuch(Sound):
    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"mean": student["logits"].mean(0)}


class Scalar(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().of(student, teacher) * self.factor.exp()


class OutsideOfTheState(Sound):
    """Objective with a parameter outside of its state."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:
        return {}

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().of(student, teacher) * self.factor.exp()


class ZeroTimesInfinity(Sound):
    card = Card("zero times infinity")

    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        log_student, log_teacher = student.log_softmax(1), teacher.log_softmax(1)
        return (log_teacher.exp() * (log_teacher - log_student)).sum(1)


class Uphill(Sound):
    def of(self, student: Tensor, teacher: Tensor) -> Tensor:
        value = super().of(student, teacher)
        return 2 * value.detach() - value


BROKEN: dict[type[Objective], str] = {
    LogOfSoftmax: "finite at extremes: .*(loss is nan|not finite)",
    InfiniteGradient: "finite at extremes: gradient of logits.0 is not finite",
    Deaf: "finite at extremes: no gradient reaches the student",
    NotZero: "zero at match: loss is 1.0 for equal outputs of student and teacher",
    ChangesTheTeacher: "inputs untouched: logits.0 was changed in place",
    Ordered: "order of the batch: the loss depends on the order of the batch",
    BatchMean: "cut of the batch: the loss depends on how the batch is split",
    SumOfAll: "finite at extremes: SumOfAll.forward: returned a scalar",
    CountsAll: "only counted items: an invalid sample that holds noise changes the loss",
    CountsTheUnlabelled: "only counted items: an unlabelled item that holds noise changes the loss",
    HearsTheUncounted: "only counted items: an invalid sample that holds noise changes the loss",
    DiscardsTooLate: "only counted items: an invalid sample that holds nan has a gradient",
    ReadsPadding: "only counted positions: a position without attention_mask that holds nan",
    AnotherTask: "other tasks: segmentation: an invalid sample that holds nan has a gradient",
    OneIsNoVariance: "empty and single: .*(one item|degrees of freedom)",
    WantsContiguous: "layout: ",
    MovesInForward: "state moves after the step: forward or state_updates moved the state 'seen'",
    KeepsTooMuch: "state moves after the step: state_updates does not return one row",
    Scalar: r"parameters are seen: a trainable scalar has the shape \(\)\. Expected \(1,\)",
    OutsideOfTheState: "parameters are seen: a parameter is missing from the state",
    ZeroTimesInfinity: "impossible class: the loss is nan if a class is minus infinity on both",
    ImagesOnly: "grids of the card: the card declares the grids tokens, 1d, 2d, 3d, and",
    Uphill: "loss falls: the loss does not fall in 20 steps on free outputs",
}


def test_the_sound_one_holds() -> None:
    check_objective(Sound)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore:var():UserWarning")
def test_a_broken_one_is_named(kind: type[Objective]) -> None:
    with pytest.raises(AssertionError, match=f"^{BROKEN[kind]}"):
        check_objective(kind)


@pytest.mark.filterwarnings("ignore:var():UserWarning")
def test_every_contract_is_broken_by_one() -> None:
    names = {contract.__name__.strip("_").replace("_", " ") for contract in CONTRACTS}
    names -= {"few classes"}  # a ValueError about classes is as good as a loss
    assert names == {message.partition(":")[0] for message in BROKEN.values()}


def test_the_card_decides_which_contracts_apply() -> None:
    class DeclaresIt(NotZero):
        card = dataclasses.replace(Sound.card, zero_at_match=False)

    check_objective(DeclaresIt)


def test_loss_and_gradient() -> None:
    student, teacher, batch = sample_outputs()
    loss, gradients = loss_and_gradient(Sound(), student, teacher, batch)
    difference = student["logits"] - teacher["logits"]
    assert torch.allclose(loss, difference.square().mean())
    assert torch.allclose(gradients["logits.0"], 2 * difference / difference.numel())


def test_samples_repeat_and_a_third_has_no_label() -> None:
    one, two = sample_outputs(9), sample_outputs(9)
    assert torch.equal(one[0]["logits"], two[0]["logits"])
    assert not torch.equal(one[0]["logits"], one[1]["logits"])
    assert int((one[2]["label"] == -100).sum()) == 3


def test_a_strided_sample_stays_strided_in_a_clone() -> None:
    student = sample_outputs()[0]
    for before, after in zip(
        (student["logits"], *student["features"]), _flat(make_strided(student)), strict=True
    ):
        assert torch.equal(before, after)
        assert not after.clone().is_contiguous()


def _flat(outputs: Outputs) -> list[Tensor]:
    return [outputs["logits"], *outputs["features"]]


class Two(Objective):
    """Objective that reads the embedding, not the logits."""

    card = Card("two")
    needs: ClassVar = {"student": (("embedding",),), "teacher": (("logits",),)}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return student["embedding"].square().sum(1)


def test_the_gradient_of_what_is_read() -> None:
    assert set(loss_and_gradient(Two(), *sample_outputs())[1]) == {"embedding.0"}
    assert Objectives({"two": Two()}).reads("student") == {"embedding"}
