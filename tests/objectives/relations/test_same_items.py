"""Losses that compare relations of samples refuse different numbers of samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import instil

VECTORS = [
    "cka_loss",
    "correlation_congruence_loss",
    "darkrank_loss",
    "dcd_loss",
    "direction_loss",
    "gcrd_loss",
    "gsp_loss",
    "hkd_loss",
    "irg_graph_loss",
    "itrd_mutual_loss",
    "mlkd_batch_loss",
    "mlkd_class_loss",
    "pkt_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "similarity_preserving_loss",
    "wcord_transport_loss",
]
MAPS = [
    "attention_transfer_loss",
    "cirkd_minibatch_loss",
    "csd_loss",
    "ickd_loss",
    "norm_loss",
    "nst_loss",
    "skd_pairwise_loss",
    "wkd_feature_loss",
]
CASES = [*((name, (5,)) for name in VECTORS), *((name, (4, 4, 4)) for name in MAPS)]


@pytest.mark.parametrize(("name", "shape"), CASES)
@pytest.mark.parametrize("count", [1, 5])
def test_one_teacher_row_is_not_repeated(name: str, shape: tuple[int, ...], count: int) -> None:
    loss: Any = getattr(instil, name)
    student = torch.rand(6, *shape)
    assert torch.isfinite(loss(student, torch.rand(6, *shape)))
    with pytest.raises(
        ValueError, match=rf"^{name}: the student has 6 samples, the teacher {count}"
    ):
        loss(student, torch.rand(count, *shape))


@pytest.mark.parametrize("count", [1, 5])
def test_other_losses_do_not_repeat_a_row(count: int) -> None:
    student, teacher = torch.rand(6, 5), torch.rand(count, 5)
    with pytest.raises(ValueError, match=r"^compress_loss: the student has 6 samples"):
        instil.compress_loss(student, teacher, torch.rand(6, 5), torch.rand(6, 5))
    with pytest.raises(ValueError, match=r"^prompt_kd_loss: the student has 6 samples"):
        instil.prompt_kd_loss(student, teacher, torch.rand(6, 5), 1.0, 1.0)
    with pytest.raises(ValueError, match=r"^student logits are \(6, 5\), teacher logits \("):
        instil.two_dpass_loss(teacher, student, torch.zeros(6, dtype=torch.long))
    with pytest.raises(ValueError, match=r"^lwm_loss: the student has 6 samples"):
        instil.lwm_loss(student, teacher)


@pytest.mark.parametrize(
    ("name", "dims"),
    [
        ("cwd_loss", 3),
        ("distilbert_loss", 3),
        ("distilhubert_loss", 3),
        ("fitnet_loss", 2),
        ("jacobian_loss", 3),
        ("mobilebert_attention_loss", 4),
        ("mobilebert_feature_loss", 3),
        ("temporal_difference_loss", 3),
        ("tinybert_attention_loss", 4),
        ("tinybert_hidden_loss", 3),
    ],
)
def test_too_few_dimensions_are_named(name: str, dims: int) -> None:
    loss: Any = getattr(instil, name)
    pair = torch.rand(2, *[3] * (dims - 2)), torch.rand(2, *[3] * (dims - 2))
    with pytest.raises(ValueError, match=rf"^{name}: Expected {dims} or more dimensions, got"):
        loss(*pair)
