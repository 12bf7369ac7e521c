"""Each contract of a scheme detects its violation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Net, Outputs, Scheme, Teacher, Update, item_weights, mean
from instil.objectives.logits.kd import KD
from instil.schemes.adversarial.adversarial import Adversarial
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.nets import batch, net


class Broken(Offline):
    card = Card("broken")

    def __init__(self, teacher: Teacher | None = None) -> None:
        super().__init__(net(4), teacher or Frozen(net(8, 1)), {"kd": KD()})


class CutMatters(Broken):
    def step(self, batch: Batch) -> Iterator[Update]:
        outputs = self.student(batch)
        outputs["logits"] = outputs["logits"] - outputs["logits"].mean(0)
        yield self.objectives(outputs, self.teacher_outputs(batch), batch)


class WrongCount(Broken):
    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"kd": torch.tensor(1.0)}


class NoCount(Broken):
    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {}


class LeavesGradient(Broken):
    def before_step(self, batch: Batch) -> Batch:
        self.student(batch)["logits"].sum().backward()
        return batch


class MovesInStep(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def step(self, batch: Batch) -> Iterator[Update]:
        self.seen.copy_(batch["step"] + 1)
        yield from super().step(batch)


class NeverUpdated(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Linear(2, 2)
        self.learners["critic"] = ("critic",)


class MovesAnother(Broken):
    """Scheme that updates the critic manually in the student's step."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Linear(5, 1)
        self.learners["critic"] = ("critic",)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return super().counts(batch) | {"critic": item_weights(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield Update(
            {
                "critic": mean(
                    self.critic(self.student(batch)["logits"].detach()).square()[:, 0],
                    item_weights(batch),
                )
            },
            "critic",
        )
        update = self.objectives(self.student(batch), self.teacher_outputs(batch), batch)
        update.losses["kd"].register_hook(self.push)
        del batch
        yield update

    def push(self, gradient: Tensor) -> None:
        self.critic.bias.data.fill_(3.0)


class Holds(Broken):
    def step(self, batch: Batch) -> Iterator[Update]:
        outputs = self.student(batch)
        yield self.objectives(outputs, self.teacher_outputs(batch), batch)


class Forgets(Broken):
    """Scheme with a memory outside of its checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def step(self, batch: Batch) -> Iterator[Update]:
        update = self.objectives(self.student(batch), self.teacher_outputs(batch), batch)
        update.losses["kd"] = update.losses["kd"] * (1 + self.steps)
        del batch
        yield update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        self.steps += 1


class Uphill(Broken):
    def step(self, batch: Batch) -> Iterator[Update]:
        update = self.objectives(self.student(batch), self.teacher_outputs(batch), batch)
        update.losses["kd"] = 2 * update.losses["kd"].detach() - update.losses["kd"]
        del batch
        yield update


class ExportsTheModel(Broken):
    def export(self) -> Net:
        return self.student.model  # type: ignore[no-any-return]


class Leaky(Frozen):
    """Teacher that enables gradients after the check of the engine."""

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        if "step" in batch:
            self.net.requires_grad_(True)
        outputs: Outputs = self.net(batch)
        return outputs


BROKEN: dict[str, tuple[Callable[[], Scheme], str]] = {
    "cut": (CutMatters, "'student.model.* depends on how the batch is split into micro-batches"),
    "wrong count": (
        WrongCount,
        "'student.model.* depends on how the batch is split into micro-batches",
    ),
    "no count": (NoCount, "^same for any cut: loss 'kd' has no count"),
    "leaves a gradient": (LeavesGradient, "before_step leaves a gradient"),
    "moves in step": (
        MovesInStep,
        "step changed the state 'seen'; only after_step and the optimizers may",
    ),
    "never updated": (NeverUpdated, r"learners \['critic'\] are never updated"),
    "moves another": (
        MovesAnother,
        "^each learner moves in its own update: step changed the state 'critic.bias'",
    ),
    "holds outputs": (Holds, "'outputs' is held across a yield; set holds_graph on the card"),
    "forgets": (Forgets, "differs after a resumed training"),
    "uphill": (Uphill, "the student's loss does not fall on one repeated batch"),
    "exports the model": (ExportsTheModel, "export returns a Body, not a Net"),
    "gradient into the teacher": (
        lambda: Broken(Leaky(net(8, 1))),
        "teacher 'teacher' has a gradient",
    ),
}


def test_the_sound_one_holds() -> None:
    check_scheme(Broken, lambda step: batch(seed=step))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_is_named(name: str) -> None:
    make, message = BROKEN[name]
    with pytest.raises(AssertionError, match=message):
        check_scheme(make, lambda step: batch(seed=step))


def test_the_card_decides_which_contracts_apply() -> None:
    class DeclaresIt(Holds):
        card = Card("declares_it", holds_graph=True)

    check_scheme(DeclaresIt, lambda step: batch(seed=step))


def test_each_contract_gets_a_new_scheme() -> None:
    calls: list[Any] = []

    def make() -> Scheme:
        calls.append(copy.copy(0))
        return Adversarial(net(4), Frozen(net(8, 1)), {"kd": KD()})

    check_scheme(make, lambda step: batch(seed=step))
    assert len(calls) > 5
