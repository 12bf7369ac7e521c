"""Types of sharded weights in bfloat16, against the same arithmetic in one process."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net, Objectives
from instil.engine.shard_precision import gathered_dtype, stored_dtypes
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from tests.engine.sharded_on_ranks import STEPS, batch_of, texts
from tests.test_parity import on_two_ranks

HALF = torch.bfloat16


def one_process() -> Tensor:
    """Train a network in bfloat16 with weights, gradients and states of an optimizer in float32.

    Each step has the two parts of a batch that two processes have.
    """
    student = texts(8, 0)
    weights = [parameter.detach().clone().requires_grad_() for parameter in student.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=0.01)
    scheme = Offline(student.to(HALF), Frozen(texts(16, 1).to(HALF)), {"kd": KD()})
    for step in range(STEPS):
        batch = batch_of(step)
        for rows in (slice(4), slice(4, 8)):
            part = {key: value[rows] if value.ndim else value for key, value in batch.items()}
            with torch.autocast("cpu", HALF):
                loss = next(scheme.step(part)).losses["kd"]
            loss.backward()
            for weight, parameter in zip(weights, student.parameters(), strict=True):
                half = parameter.grad.float() / 2
                weight.grad = half if weight.grad is None else weight.grad + half
            student.zero_grad()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        for weight, parameter in zip(weights, student.parameters(), strict=True):
            parameter.data.copy_(weight)
    names = [name for name, _ in student.named_parameters()]
    values = dict(zip(names, weights, strict=True))
    # The head has the weight of the embedding.
    values["model.head.weight"] = values["model.base_model.tokens.weight"]
    return torch.cat([values[name].detach().flatten() for name in student.state_dict()])


@pytest.mark.slow
def test_weights_are_gathered_in_bfloat16(tmp_path: Path) -> None:
    two = on_two_ranks("tests.engine.half_sharded_on_ranks", tmp_path / "two.pt")
    assert two["types"] == {
        "gathered": [HALF],
        "student": [torch.float32],
        "gradients": [torch.float32],
        "states": [torch.float32],
        "teacher": [HALF],
    }
    # Weights that autocast copies, or sums of gradients in bfloat16, give errors above 1e-3.
    torch.testing.assert_close(two["weights"], one_process(), atol=1e-6, rtol=0)


def test_types_of_parts() -> None:
    scheme = Offline(texts(8, 0), Frozen(texts(16, 1)), {"kd": KD()})
    convolutional = Net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert gathered_dtype(scheme.student, HALF) == HALF
    assert gathered_dtype(scheme.student, torch.float32) is None
    assert gathered_dtype(Objectives({"kd": KD()}), HALF) is None
    assert gathered_dtype(convolutional, HALF) is None
    stored = stored_dtypes(scheme, HALF)
    assert {stored[parameter] for parameter in scheme.student.parameters()} == {torch.float32}
    assert {stored[parameter] for parameter in scheme.teacher.parameters()} == {HALF}
