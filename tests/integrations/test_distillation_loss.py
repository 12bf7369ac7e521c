"""Loss of a scheme in a training loop outside of the package."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from instil import Optimization, Training, distil
from instil.integrations import DistillationLoss
from tests.nets import pooled_cnn

STEPS = 4
NAMES = ("image", "label", "index")
Example = tuple[Tensor, Tensor]


def network(width: int) -> nn.Sequential:
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 3),
    )


def plain_network(width: int) -> nn.Sequential:
    """Network without statistics of its batch."""
    torch.manual_seed(width)
    return pooled_cnn(width)


def two_batches() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 8, 1, 6, 6, generator=generator)
    label = torch.tensor([0, 1, 2, -100, 1, 2, -100, -100])
    return [(image, label) for image in images]


@pytest.fixture
def batches() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(STEPS, 6, 1, 8, 8, generator=generator)
    labels = torch.tensor([0, 1, 2, 0, 1, -100])
    return [(image, labels.roll(i)) for i, image in enumerate(images)]


def weights_after_loop(
    student: nn.Module, objectives: dict[str, object], batches: list[Example]
) -> Tensor:
    names = NAMES[: len(batches[0])]
    distillation = DistillationLoss(network(8).eval(), student, objectives, batches[0], names=names)
    optimizer = torch.optim.SGD(distillation.parameters(), lr=0.05)
    distillation.train()
    for step, batch in enumerate(batches):
        loss, parts = distillation(batch, step, step / STEPS)
        assert set(parts) == set(objectives)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distillation.after_step()
    return nn.utils.parameters_to_vector(student.parameters())


@pytest.mark.parametrize(
    "objectives",
    [
        {"cross_entropy": 1.0, "kd": {"temperature": 2, "weight": 0.5}},
        {"cross_entropy": 1.0, "fitnet": 1.0},
        {"cross_entropy": 1.0, "crd": {"negatives": 4}},
        {"kd": {"weight": {"start": 1.0, "end": 0.1}}},
    ],
    ids=["kd", "fitnet", "crd", "schedule"],
)
def test_a_plain_loop_gives_the_weights_of_fit(
    objectives: dict[str, object], batches: list[Example]
) -> None:
    if "crd" in objectives:
        batches = [(*batch, torch.arange(6)) for batch in batches]  # type: ignore[misc]
    torch.manual_seed(0)
    student = network(4)
    expected = copy.deepcopy(student)
    torch.manual_seed(1)
    actual = weights_after_loop(student, objectives, batches)
    torch.manual_seed(1)
    optimizer = Optimization("sgd", {"lr": 0.05})
    training = Training(steps=STEPS, optimizer=optimizer, schedule="constant", device="cpu")
    names = NAMES[: len(batches[0])]
    teacher = network(8).eval()
    distil(teacher, expected, batches, objectives, names=names, training=training, progress=False)
    expected_weights = nn.utils.parameters_to_vector(expected.parameters())
    torch.testing.assert_close(actual, expected_weights, rtol=0, atol=1e-6)


def test_the_state_has_no_teacher_and_loads_strictly(
    batches: list[Example], tmp_path: Path
) -> None:
    objectives = {"fitnet": 1.0}
    distillation = DistillationLoss(network(8), network(4), objectives, batches[0])
    state = distillation.state_dict()
    assert state
    assert not any("teacher" in name.split(".") for name in state)
    assert any("objectives" in name for name in state), "adapters are part of the state"
    other = DistillationLoss(network(8), network(4), objectives, batches[0])
    with torch.no_grad():
        next(other.student.parameters()).zero_()
    other.load_state_dict(state)
    assert torch.equal(next(other.student.parameters()), next(distillation.student.parameters()))


def test_a_state_without_the_student_is_refused(batches: list[Example]) -> None:
    distillation = DistillationLoss(network(8), network(4), {"kd": 1.0}, batches[0])
    state = distillation.state_dict()
    del state[next(iter(state))]
    with pytest.raises(RuntimeError, match="Missing key"):
        distillation.load_state_dict(state)


def test_the_teacher_is_not_trained(batches: list[Example]) -> None:
    teacher = network(8)
    before = copy.deepcopy(teacher.state_dict())
    distillation = DistillationLoss(teacher, network(4), {"kd": 1.0}, batches[0])
    distillation.train()
    distillation(batches[0]).loss.backward()
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_wrong_labels_and_names_are_refused(batches: list[Example]) -> None:
    image, label = batches[0]
    with pytest.raises(ValueError, match="label 7 is not a class of the student"):
        DistillationLoss(network(8), network(4), {"kd": 1.0}, (image, label + 7))
    with pytest.raises(ValueError, match="kdd"):
        DistillationLoss(network(8), network(4), {"kdd": 1.0}, (image, label))


def test_a_student_with_the_weights_of_the_teacher_is_refused(batches: list[Example]) -> None:
    model = network(4)
    with pytest.raises(ValueError, match="student: has no parameter to train: its weights"):
        DistillationLoss(model, model, {"kd": 1.0}, batches[0])


def test_two_ranks_have_the_weights_of_one_process(tmp_path: Path) -> None:
    """With parts of different sizes, missing labels and a loss that couples the batch."""
    path = tmp_path / "student.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.integrations.loss_on_ranks", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    subprocess.run(command, check=True, cwd=root, env=environment, timeout=300)
    expected = plain_network(4)
    objectives = {"cross_entropy": 1.0, "rkd": 1.0, "kd": 1.0}
    optimizer = Optimization("sgd", {"lr": 0.05})
    training = Training(steps=2, optimizer=optimizer, schedule="constant", device="cpu")
    distil(plain_network(8), expected, two_batches(), objectives, training=training, progress=False)
    for name, value in torch.load(path, weights_only=True).items():
        torch.testing.assert_close(value, expected.state_dict()[name], rtol=0, atol=1e-6)
