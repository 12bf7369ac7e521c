"""The largest network of a supernet teaches its sub-networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Batch, Net, Objectives
from instil.networks.slimmable_cnn import SlimmableCNN, slimmable_cnn
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.alphanet import AlphaNet
from instil.objectives.logits.dkd import DKD
from instil.objectives.logits.kd import KD
from instil.schemes.self_distillation.sandwich import Sandwich
from instil.testing import check_scheme
from tests.schemes.stages import images, staged, timed


def supernet() -> Net:
    torch.manual_seed(0)
    taps = {"features": ["stages.0", "stages.1"], "embedding": "head:in", "head": "head:weight"}
    return Net(slimmable_cnn(5, width=4, stages=2, depth=3), taps=taps)


def prepared_scheme(**options: Any) -> Sandwich:
    objectives = {"cross_entropy": CrossEntropy(), "kd": KD(temperature=1.0)}
    scheme = Sandwich(supernet(), objectives, **options)
    scheme.train().prepare(images())
    return scheme


def smaller_cnn(model: SlimmableCNN, image: Tensor, share: float, depth: int) -> Tensor:
    """Logits of a sub-network, by slices of the weights and plain layers."""
    for i, stage in enumerate(model.stages):
        image = torch.nn.MaxPool2d(2, ceil_mode=True)(image) if i else image
        width = max(1, round(share * model.widths[i]))
        for layer in list(stage)[:depth]:
            convolution = torch.nn.Conv2d(image.shape[1], width, 3, padding=1, bias=False)
            convolution.weight.data = layer.convolution.weight[:width, : image.shape[1]]
            norm = torch.nn.GroupNorm(1, width)
            norm.weight.data, norm.bias.data = layer.norm.weight[:width], layer.norm.bias[:width]
            image = norm(convolution(image)).relu()
    pooled = image.mean((2, 3))
    return pooled @ model.head.weight[:, : pooled.shape[1]].T + model.head.bias


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(value) for value in logits))
    return [value - total for value in logits]


@pytest.mark.parametrize("options", [{}, {"random_subnets": 0, "export_share": 0.5}])
def test_contracts(options: dict[str, Any]) -> None:
    objectives = {"cross_entropy": CrossEntropy(), "alphanet": AlphaNet()}
    # The networks agree before training, so that the divergence rises at first.
    weights = {"alphanet": 0.1}
    check_scheme(lambda: Sandwich(supernet(), Objectives(objectives, weights), **options), images)


def test_losses_match_a_loop_over_sub_networks_and_samples() -> None:
    scheme, batch = prepared_scheme(random_subnets=3), timed(4)
    model = scheme.student.model
    assert isinstance(model, SlimmableCNN)
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape))
    generator = np.random.default_rng((0, 4))
    sizes = [(0.25, 1)]
    for _ in range(3):
        share = float(generator.uniform(0.25, 1))
        sizes.append((share, int(generator.integers(1, 4))))
    assert len({depth for _, depth in sizes}) > 1
    (update,) = scheme.step(batch)
    largest = [log_softmax(row) for row in smaller_cnn(model, batch["image"], 1.0, 3).tolist()]
    hard = [
        -row[label]
        for row, label in zip(largest, batch["label"].tolist(), strict=True)
        if label >= 0
    ]
    assert update.losses["cross_entropy"].item() == pytest.approx(sum(hard) / 16, abs=1e-5)
    soft = 0.0
    for share, depth in sizes:
        logits = smaller_cnn(model, batch["image"], share, depth).tolist()
        for teacher, student in zip(largest, map(log_softmax, logits), strict=True):
            pairs = zip(teacher, student, strict=True)
            soft += sum(math.exp(p) * (p - q) for p, q in pairs) / 16
    assert soft > 0.01
    assert update.losses["kd"].item() == pytest.approx(soft, abs=1e-5)


def test_only_the_labels_teach_the_largest_network() -> None:
    scheme = prepared_scheme(random_subnets=0)
    model = scheme.student.model
    assert isinstance(model, SlimmableCNN)
    (update,) = scheme.step(timed())
    update.losses["kd"].backward()
    gradient = model.stages[0][0].convolution.weight.grad
    assert gradient is not None
    assert gradient[0].abs().sum() > 0
    # The smallest sub-network has one of four channels and one of three layers.
    assert gradient[1:].abs().sum() == 0
    assert model.stages[0][1].convolution.weight.grad is None


def test_the_exported_network_is_the_chosen_sub_network() -> None:
    scheme, batch = prepared_scheme(export_share=0.5, export_depth=2), images()
    model = scheme.student.model
    assert isinstance(model, SlimmableCNN)
    exported = scheme.export()
    outputs = exported(batch)
    expected = smaller_cnn(model, batch["image"], 0.5, 2)
    assert torch.allclose(outputs["logits"], expected, atol=1e-6)
    assert outputs["embedding"].shape == (16, 4)
    smallest = scheme.other_students()["smallest"]
    expected = smaller_cnn(model, batch["image"], 0.25, 1)
    assert torch.allclose(smallest(batch)["logits"], expected, atol=1e-6)
    counts = [
        sum(p.numel() for p in net.parameters()) for net in (scheme.student, exported, smallest)
    ]
    assert counts == sorted(counts, reverse=True)
    assert prepared_scheme().export() is not exported
    whole = prepared_scheme()
    assert whole.export() is whole.student


def test_running_statistics_that_all_widths_would_share_are_refused() -> None:
    student = supernet()
    student.model.stages[0][0].norm = torch.nn.BatchNorm2d(4)
    scheme = Sandwich(student, {"cross_entropy": CrossEntropy()})
    with pytest.raises(ValueError, match=r"running statistics of 'stages\.0\.0\.norm'"):
        scheme.prepare(images())


def test_errors_name_the_place() -> None:
    objectives = {"cross_entropy": CrossEntropy(), "alphanet": AlphaNet()}
    with pytest.raises(ValueError, match="student: the model has no sub-networks"):
        Sandwich(staged(), objectives).prepare(images())
    with pytest.raises(ValueError, match=r"scheme.export_depth: .* at most 3, got 4"):
        Sandwich(supernet(), objectives, export_depth=4).prepare(images())
    with pytest.raises(ValueError, match=r"objectives.dkd: sub-networks learn from the largest"):
        Sandwich(supernet(), {"dkd": DKD()}).prepare(images())


def test_a_step_draws_the_same_sub_networks_for_every_micro_batch() -> None:
    scheme = prepared_scheme()
    whole: Batch = timed(7)
    part = {key: value[:3] if value.ndim else value for key, value in whole.items()}
    assert scheme.sizes(whole) == scheme.sizes(part)
    assert scheme.sizes(whole) != scheme.sizes(timed(8))
