"""Losses of schemes do not depend on teacher outputs that are not finite for invalid samples."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Outputs, Scheme, batch_size
from instil.engine import Engine, Optimization
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.adversarial.adversarial import Adversarial
from instil.schemes.offline.fcfd import FCFD
from instil.schemes.robust.adaad import AdaAD
from instil.schemes.robust.ard import ARD
from instil.schemes.robust.iad import IAD
from instil.schemes.robust.rslad import RSLAD
from instil.teachers.frozen import Frozen
from instil.testing.structures import map_structure
from instil.training.step import train_step
from tests import nets
from tests.schemes import image_nets as robust
from tests.schemes.offline import test_fcfd


class NotFinite(Frozen):
    """A teacher whose outputs are NaN for invalid samples."""

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        outputs = super().forward(batch, grad)

        def spoiled(value: Tensor) -> Tensor:
            invalid = ~batch["valid"].view(-1, *[1] * (value.ndim - 1))
            return value.masked_fill(invalid, torch.nan)

        return map_structure(outputs, spoiled)


def attacked(kind: Callable[..., Scheme]) -> Callable[[type[Frozen]], Scheme]:
    options = {"epsilon": 0.2, "step_size": 0.05, "attack_steps": 2}
    return lambda teacher: kind(
        robust.net(2), teacher(robust.net(3, 1)), {"cross_entropy": CrossEntropy()}, **options
    )


def judged(**options: float) -> Callable[[type[Frozen]], Scheme]:
    return lambda teacher: Adversarial(
        nets.net(8), teacher(nets.net(6, 1)), {"kd": KD()}, role="embedding", **options
    )


SCHEMES: dict[str, Callable[[type[Frozen]], Scheme]] = {
    "ard": attacked(ARD),
    "rslad": attacked(RSLAD),
    "adaad": attacked(AdaAD),
    "iad": attacked(IAD),
    "adversarial": judged(),
    "penalty": judged(penalty=2.0),
    "fcfd": lambda teacher: FCFD(
        test_fcfd.net(3), teacher(test_fcfd.net(5, 1)), {"kd": KD()}, paths=4
    ),
}


def weights_after_a_step(name: str, teacher: type[Frozen]) -> Outputs:
    torch.manual_seed(0)
    scheme = SCHEMES[name](teacher)
    batch = nets.timed() if name in ("adversarial", "penalty", "fcfd") else robust.timed()
    batch["valid"] = torch.arange(batch_size(batch)) % 4 > 0
    scheme.train().prepare(batch)
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.05}))
    train_step(engine, scheme, [batch])
    return scheme.state_dict()


@pytest.mark.parametrize("name", SCHEMES)
def test_the_step_is_that_of_a_finite_teacher(name: str) -> None:
    plain = weights_after_a_step(name, Frozen)
    poisoned = weights_after_a_step(name, NotFinite)
    for key, value in plain.items():
        torch.testing.assert_close(poisoned[key], value, msg=f"{key} differs")
