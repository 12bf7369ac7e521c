"""Mixed outputs of two images and the outputs for their mixture teach each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Batch
from instil.functional.mixup_losses import discriminator_loss, mixed_label_loss
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.dkd import DKD
from instil.objectives.logits.kd import KD
from instil.schemes.self_distillation.mixskd import MixSKD
from instil.testing import check_scheme
from tests.schemes.stages import images, staged, timed


def paired(batch: Batch) -> Batch:
    """Return the batch with a partner for each sample."""
    return batch | {
        "partner_image": batch["image"].roll(4, 0),
        "partner_label": batch["label"].roll(4, 0),
    }


def prepared_scheme(**options: Any) -> MixSKD:
    torch.manual_seed(0)
    scheme = MixSKD(staged(), {"cross_entropy": CrossEntropy(), "kd": KD(3)}, **options)
    scheme.train().prepare(images())
    return scheme


def log_softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    total = math.log(sum(math.exp(value / temperature) for value in logits))
    return [value / temperature - total for value in logits]


def divergence(student: Tensor, teacher: Tensor) -> float:
    """Mean KL divergence over the samples at temperature 3, times 9."""
    total = 0.0
    for student_row, teacher_row in zip(student.tolist(), teacher.tolist(), strict=True):
        q, p = log_softmax(student_row, 3), log_softmax(teacher_row, 3)
        total += sum(math.exp(b) * (b - a) for a, b in zip(q, p, strict=True))
    return 9 * total / len(student)


def label_loss(logits: Tensor, label: Tensor) -> list[float]:
    rows = zip(logits.tolist(), label.tolist(), strict=True)
    return [-log_softmax(row)[target] if target >= 0 else math.nan for row, target in rows]


def sigmoid_loss(score: float, target: float) -> float:
    p = 1 / (1 + math.exp(-score))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mixture_label_weight": 0, "train_discriminators": False},
        {"feature_weight": 0, "discriminator_weight": 0},
    ],
)
def test_contracts(options: dict[str, Any]) -> None:
    objectives = {"cross_entropy": CrossEntropy(), "kd": KD()}
    check_scheme(lambda: MixSKD(staged(), objectives, **options), lambda step: paired(images(step)))


def test_losses_match_a_loop_over_images_and_ends() -> None:
    scheme = prepared_scheme(
        mixture_label_weight=0.5, feature_weight=2.0, discriminator_weight=0.25
    )
    batch = scheme.before_step(paired(timed(4)))
    share = float(np.random.default_rng((0, 4)).beta(0.4, 0.4))
    image, partner = batch["image"], batch["partner_image"]
    mixture = share * image + (1 - share) * partner
    assert torch.allclose(batch["mixture"], mixture, atol=1e-6)
    (update,) = scheme.step(batch)

    def outputs(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits and maps of each branch, the main branch first."""
        whole = scheme.student({"image": x})
        maps, logits = [whole["features"][-1]], [whole["logits"]]
        for branch, stage in zip(scheme.branches, whole["features"], strict=False):
            maps.append(branch.body(stage))
            logits.append(branch.head(maps[-1].mean((2, 3))))
        return logits, maps

    def blend(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
        return [share * a + (1 - share) * b for a, b in zip(one, other, strict=True)]

    own, own_maps = outputs(image)
    other, other_maps = outputs(partner)
    logits, maps = outputs(mixture)
    blended, blended_maps = blend(own, other), blend(own_maps, other_maps)
    assert scheme.self_teacher is not None
    weight = scheme.self_teacher[0].weight[:, :, None, None]

    def ensemble(parts: list[Tensor]) -> Tensor:
        """The self-teacher as in the authors' code: convolution, pooling, classifier."""
        pooled = torch.nn.functional.conv2d(torch.cat(parts, 1), weight).mean((2, 3))
        return scheme.self_teacher[1](pooled)

    label, partner_label = batch["label"], batch["partner_label"]
    hard = [value for end in own for value in label_loss(end, label) if not math.isnan(value)]
    assert update.losses["cross_entropy"].item() == pytest.approx(sum(hard) / 16, abs=1e-5)
    soft = divergence(blended[0], ensemble(maps)) + divergence(logits[0], ensemble(blended_maps))
    for end in (1, 2):
        soft += divergence(blended[end], logits[end]) + divergence(logits[end], blended[end])
    assert update.losses["kd"].item() == pytest.approx(soft, abs=1e-4)
    of_mixtures = 0.0
    for end in [*logits, ensemble(blended_maps), ensemble(maps)]:
        for a, b in zip(label_loss(end, label), label_loss(end, partner_label), strict=True):
            value = share * a + (1 - share) * b
            of_mixtures += 0.0 if math.isnan(value) else value
    assert of_mixtures > 0
    assert update.losses["mixture_labels"].item() == pytest.approx(0.5 * of_mixtures / 16, abs=1e-5)
    squares = sum((a - b).square().mean().item() for a, b in zip(blended_maps, maps, strict=True))
    assert update.losses["mixture_features"].item() == pytest.approx(2 * squares, abs=1e-5)
    judged = 0.0
    for discriminator, a, b in zip(scheme.discriminators, blended_maps, maps, strict=True):
        scores = discriminator(torch.cat([a, b]).mean((2, 3))).tolist()
        targets = [(1.0, 0.0)] * 16 + [(0.0, 1.0)] * 16
        for row, target in zip(scores, targets, strict=True):
            pairs = zip(row, target, strict=True)
            judged += sum(sigmoid_loss(score, truth) for score, truth in pairs) / 64
    assert update.losses["discriminator"].item() == pytest.approx(0.25 * judged, abs=1e-5)


def test_no_gradient_passes_into_a_teacher() -> None:
    scheme = prepared_scheme()
    (update,) = scheme.step(scheme.before_step(paired(timed())))
    assert scheme.self_teacher is not None
    update.losses["kd"].backward(retain_graph=True)
    assert scheme.self_teacher[0].weight.grad is None
    update.losses["mixture_labels"].backward(retain_graph=True)
    assert scheme.self_teacher[0].weight.grad.abs().sum() > 0
    update.losses["discriminator"].backward()
    assert all(p.grad is not None for p in scheme.discriminators.parameters())


def test_options_of_the_code_leave_parts_untrained() -> None:
    scheme = prepared_scheme(mixture_label_weight=0, train_discriminators=False)
    (update,) = scheme.step(scheme.before_step(paired(timed())))
    assert set(update.losses) == {"cross_entropy", "kd", "mixture_features", "discriminator"}
    assert set(scheme.counts(timed())) == set(update.losses)
    assert scheme.self_teacher is not None
    parts = (*scheme.self_teacher.parameters(), *scheme.discriminators.parameters())
    assert not any(parameter.requires_grad for parameter in parts)


def test_the_content_of_an_invalid_item_changes_nothing() -> None:
    results = []
    for spoiled in (0.0, 100.0):
        scheme = prepared_scheme()
        batch = paired(timed())
        batch["valid"] = torch.arange(16) != 5
        for key in ("image", "partner_image"):
            batch[key] = batch[key].clone()
            batch[key][5] = spoiled
        (update,) = scheme.step(scheme.before_step(batch))
        torch.stack(list(update.losses.values())).sum().backward()
        results.append([p.grad for p in scheme.parameters() if p.grad is not None])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_gradients_of_the_own_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    target, partner = torch.tensor([0, 1, 2, -100]), torch.tensor([1, 1, -100, 0])
    assert torch.autograd.gradcheck(lambda x: mixed_label_loss(x, target, partner, 0.3), logits)
    values = mixed_label_loss(logits, target, partner, 0.3, "none")
    assert values[2:].tolist() == [0, 0]
    scores = torch.randn(4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: discriminator_loss(x, x.flip(0)), scores)


def test_errors_name_the_remedy() -> None:
    scheme = prepared_scheme()
    with pytest.raises(ValueError, match=r"'partner_image' .* Set data.augment.partner: true"):
        scheme.before_step(timed())
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"objectives.dkd: a mixture has two labels"):
        MixSKD(staged(), {"dkd": DKD()}).prepare(images())
