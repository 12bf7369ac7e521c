"""Views of an image, a head, and a slow copy of both."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Net
from instil.engine import Engine, Optimization
from instil.functional.crops import random_crops
from instil.objectives.logits.dino import DINO as DINOLoss
from instil.schemes.self_distillation.dino import DINO
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.schemes.stages import images, staged, timed


def seeing() -> Net:
    return Net(staged().model, taps={"embedding": "head:in"})


def make_scheme() -> DINO:
    torch.manual_seed(0)
    return DINO(
        seeing(),
        {"dino": DINOLoss()},
        local_views=1,
        prototypes=12,
        hidden=8,
        narrow=4,
        momentum=0.5,
    )


def test_contracts() -> None:
    """The classifier of the student gets no gradient; it is not a separate learner."""
    check_scheme(make_scheme, images)


def test_the_teacher_sees_the_large_views_alone_and_the_student_all() -> None:
    scheme = make_scheme()
    scheme.train().prepare(images())
    batch = scheme.before_step(timed())
    assert batch["views"].shape == (16, 3, 1, 6, 6)
    student, teacher = scheme.forward_both(batch)
    assert student["view_logits"].shape == (16, 3, 12)
    assert teacher["view_logits"].shape == (16, 2, 12)
    assert torch.allclose(student["view_logits"][:, :2], teacher["view_logits"], atol=1e-5), (
        "at first they are one net"
    )


def test_both_averages_follow_and_more_slowly_towards_the_end() -> None:
    scheme = make_scheme()
    scheme.train().prepare(images())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.5}))
    before = scheme.teacher_head.net.model.prototypes.weight.clone()
    train_step(engine, scheme, [timed() | {"progress": torch.tensor(0.25)}])
    decay = 1 - 0.5 * (math.cos(math.pi / 4) + 1) / 2
    expected = decay * before + (1 - decay) * scheme.head.prototypes.weight
    assert torch.allclose(scheme.teacher_head.net.model.prototypes.weight, expected, atol=1e-6)
    assert scheme.export() is scheme.student


def test_crops_are_functions_of_step_and_sample_and_show_a_share() -> None:
    batch = timed()
    views = random_crops(batch, 2, (0.3, 0.6), stream="crops")
    assert torch.equal(views, random_crops(batch, 2, (0.3, 0.6), stream="crops"))
    assert not torch.equal(
        views, random_crops(batch | {"step": torch.tensor(1)}, 2, (0.3, 0.6), stream="crops")
    )
    part = {
        key: value[4:9] if key in ("image", "label", "index") else value
        for key, value in batch.items()
    }
    assert torch.allclose(random_crops(part, 2, (0.3, 0.6), stream="crops"), views[4:9])
    ramp = torch.linspace(0, 1, 32).expand(16, 1, 32, 32).contiguous()
    shown = random_crops(batch | {"image": ramp}, 1, (0.25, 0.25), stream="crops")[:, 0, 0].amax(0)
    spread = random_crops(batch | {"image": ramp}, 1, (0.25, 0.25), stream="crops")[:, 0, 0]
    widths = spread.amax((1, 2)) - spread.amin((1, 2))
    assert shown.max() <= 1
    assert (
        (widths > 0.5 * (3 / 4) ** 0.5 - 0.06) & (widths < 0.5 * (4 / 3) ** 0.5 + 0.06)
    ).all(), "a quarter of the area, half of a side"


def test_a_whole_view_is_the_image() -> None:
    batch = timed()
    assert torch.allclose(
        random_crops(batch | {"index": batch["index"]}, 1, (1.0, 1.0), stream="crops")[:, 0].mean(),
        batch["image"].mean(),
        atol=0.05,
    )


def test_batches_without_images_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected 'embedding' in the outputs, got logits"):
        DINO(Net(staged().model), {"dino": DINOLoss()}).prepare(images())
    with pytest.raises(ValueError, match=r"Expected 'image' \(N, C, H, W\) in the batch, got x\."):
        make_scheme().before_step({"x": torch.zeros(2, 3)})
