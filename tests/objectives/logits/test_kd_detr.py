"""KD-DETR against a plain loop, and on decoders of transformers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net, Objectives
from instil.networks import factory
from instil.objectives.logits.kd_detr import KDDETR, kd_detr_loss
from instil.tasks.detection import call
from instil.teachers.frozen import Frozen
from tests.experiment.test_box_detectors import DAB_DETR, DETR, RT_DETR

WEIGHTS = (1.5, 5.0, 2.0)
TEMPERATURE = 4.0


def divergence(teacher: Tensor, student: Tensor) -> float:
    p, q = ((side / TEMPERATURE).softmax(0).tolist() for side in (teacher, student))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / len(p) * TEMPERATURE**2


def overlap(one: list[float], two: list[float]) -> float:
    edges = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (one, two)]
    a, b = edges
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = one[2] * one[3] + two[2] * two[3] - width * height
    outer = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return width * height / union - (outer - union) / outer


@pytest.mark.parametrize("binary", [False, True])
def test_equals_the_formula(binary: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(2, 5, 3, generator=generator).double() for _ in range(2))
    boxes = [0.2 + 0.6 * torch.rand(2, 5, 4, generator=generator).double() for _ in range(2)]
    expected = []
    for row in range(2):
        total = weights = 0.0
        for point in range(5):
            logits = teacher[row, point]
            weight = float(logits.sigmoid().max() if binary else logits.softmax(0)[:-1].max())
            pair = [box[row, point].tolist() for box in boxes]
            distance = sum(abs(a - b) for a, b in zip(*pair, strict=True)) / 4
            cost = WEIGHTS[0] * divergence(logits, student[row, point])
            cost += WEIGHTS[1] * distance + WEIGHTS[2] * (1 - overlap(*pair))
            total += weight * cost
            weights += weight
        expected.append(total / weights)
    values = kd_detr_loss(student, teacher, *boxes, binary, WEIGHTS, TEMPERATURE, "none")
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def detector(config: dict[str, Any], seed: int, **options: Any) -> nn.Module:
    pytest.importorskip("transformers")
    torch.manual_seed(seed)
    model = "transformers:AutoModelForObjectDetection"
    return factory.build(model, {"config": config | options}, classes=4, channels=1, size=64)


def batch() -> dict[str, Tensor]:
    box = torch.tensor([[4.0, 4, 30, 30], [-100] * 4]).expand(2, 2, 4)
    label = torch.tensor([[1, -100], [3, -100]])
    image = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return {"image": image, "label": label, "box": box, "index": torch.arange(2)}


PATTERNS = DAB_DETR | {"num_patterns": 2}


@pytest.mark.parametrize("config", [DETR, DAB_DETR, PATTERNS], ids=["detr", "dab_detr", "patterns"])
def test_own_points_reproduce_the_predictions(config: dict[str, Any]) -> None:
    model = detector(config, 0, decoder_layers=2).eval()
    with torch.no_grad():
        outputs = call(model, batch())
        logits, boxes = outputs["query_decoder"].decode(
            outputs["query_memory"], outputs["query_points"]
        )
    role = "query_logits" if config is DETR else "query_binary_logits"
    torch.testing.assert_close(logits[-1], outputs[role])
    torch.testing.assert_close(boxes[-1], outputs["query_boxes"])
    assert set(call(model, batch(), roles=["detections"])) == set(outputs) - {
        "query_decoder",
        "query_memory",
        "query_points",
    }


@pytest.mark.parametrize("is_training", [False, True])
def test_points_of_rt_detr_are_boxes(is_training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = detector(RT_DETR, 0, dropout=0.0, attention_dropout=0.0).train(is_training)
    with torch.no_grad():
        outputs = call(model, batch())
    decoder = outputs["query_decoder"].decode
    contents = decoder.inputs["inputs_embeds"][:, -6:]
    # Queries of the denoising loss are hidden from the others.
    monkeypatch.setattr(decoder, "_contents", lambda memory, points: contents)
    with torch.no_grad():
        logits, boxes = decoder(outputs["query_memory"], outputs["query_points"])
    assert logits.shape == (1, 2, 6, 4)
    torch.testing.assert_close(logits[-1], outputs["query_binary_logits"])
    torch.testing.assert_close(boxes[-1], outputs["query_boxes"])


@pytest.mark.parametrize("config", [DETR, DAB_DETR, RT_DETR], ids=["detr", "dab_detr", "rt_detr"])
def test_the_gradient_reaches_the_student_only(config: dict[str, Any]) -> None:
    # The student has other queries, and learned queries of another width.
    width = {"hidden_size": 8} if config is DAB_DETR else {"d_model": 8}
    student = Net(detector(config, 1, num_queries=3, **width).train(), call)
    teacher = Frozen(Net(detector(config, 0), call))
    objectives = Objectives({"it": KDDETR(num_points=5)})
    sides = student(batch()), teacher(batch())
    objectives.build(*sides)
    objectives(*sides, batch()).losses["it"].backward()
    gradients = {
        name: parameter.grad
        for name, parameter in student.named_parameters()
        if "decoder.layers" in name
    }
    assert all(gradient is not None for gradient in gradients.values())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert len(list(objectives.parameters())) == (2 if config is DETR else 0)


def test_equal_detectors_have_no_loss_at_their_own_points() -> None:
    model = detector(DAB_DETR, 0).eval()
    objectives = Objectives({"it": KDDETR(num_points=5)})
    outputs = call(model, batch())
    objectives.build(outputs, outputs)
    assert objectives(outputs, outputs, batch()).losses["it"].abs() < 1e-6


def test_wrong_detectors() -> None:
    sides = [call(detector(config, 0).eval(), batch()) for config in (DETR, RT_DETR)]
    with pytest.raises(ValueError, match="kd_detr: one detector has a softmax"):
        Objectives({"it": KDDETR()}).build(*sides)
    with pytest.raises(ValueError, match="general, specific: both are 0"):
        KDDETR(general=0.0, specific=0.0)
    sides = [call(detector(config, 0).eval(), batch()) for config in (DAB_DETR, PATTERNS)]
    with pytest.raises(ValueError, match=r"one number of patterns, got 1 of the student and 2 of"):
        Objectives({"it": KDDETR()}).build(*sides)


def test_all_queries_of_all_patterns_count() -> None:
    model = detector(PATTERNS, 0).train()
    outputs = call(model, batch())
    assert outputs["query_binary_logits"].shape == (2, 12, 4)
    assert outputs["query_points"].shape == (2, 6, 4)
    # Patterns have contents of their own, so that their predictions differ.
    first, second = outputs["query_binary_logits"].split(6, 1)
    assert (first - second).abs().max() > 1e-3
    logits, _ = outputs["query_decoder"].decode(outputs["query_memory"], torch.zeros(2, 3, 4))
    assert logits.shape[1:] == (2, 6, 4)
    other = call(detector(PATTERNS, 1).train(), batch())
    objectives = Objectives({"it": KDDETR(num_points=5)})
    objectives.build(outputs, other)
    objectives(outputs, other, batch()).losses["it"].backward()
    assert model.model.patterns.weight.grad.abs().sum() > 0
