from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Outputs
from instil.functional.errors import cosine_distance, smooth_l1_distance
from instil.functional.feature_maps import patch_tokens
from instil.modules.adapters import PointwiseConv
from instil.modules.normalizers import StandardizeChannels
from instil.objectives.bases.patch_objective import PatchObjective


class Squares(PatchObjective):
    """Minimal patch objective."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return torch.stack(
            [
                (student_values - target(teacher_values)).square().mean((1, 2))
                for student_values, teacher_values, target in self.matched_pairs(student, teacher)
            ]
        ).mean(0)


def test_every_member_of_an_ensemble_has_its_adapter() -> None:
    student = {"features": (torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4))}
    one, two = {"features": (torch.randn(2, 6, 2, 2),)}, {"features": (torch.randn(2, 17, 5),)}
    together = Squares()
    together.resolve({"features"}, {"logits", "members"})
    together.build(student, {"members": (one, two)})
    assert [type(adapter.project) for adapter in together.adapters] == [PointwiseConv] * 2
    assert together.plan == [
        "student 1 (4x4x4) <- teacher 0 (6x2x2): 4x4 -> 2x2, conv 1x1",
        "student 1 (4x4x4) <- teacher 0 (17x5): conv 1x1",
    ]
    alone = []
    for index, member in enumerate((one, two)):
        single = Squares()
        single.build(student, member)
        single.adapters[0].load_state_dict(together.adapters[index].state_dict())
        alone.append(single(student, member, {}))
    assert torch.allclose(
        together(student, {"members": (one, two)}, {}), torch.stack(alone).mean(0)
    )


def test_a_member_without_features_is_named() -> None:
    with pytest.raises(ValueError, match="teacher 1 gives logits, and no features"):
        Squares().build(
            {"features": torch.randn(2, 3, 4, 4)},
            {"members": ({"features": torch.randn(2, 3, 4, 4)}, {"logits": torch.randn(2, 3)})},
        )


def test_patches_are_the_positions_of_a_map_and_the_tokens_but_the_class_token() -> None:
    stage = torch.randn(2, 3, 2, 4)
    assert torch.equal(patch_tokens(stage)[1, 5], stage[1, :, 1, 1])
    tokens = torch.randn(2, 10, 3)
    assert torch.equal(patch_tokens(tokens), tokens[:, 1:])


def test_distances_are_those_of_single_vectors() -> None:
    student, teacher = (
        torch.randn(2, 3, 4, dtype=torch.float64),
        torch.randn(2, 3, 4, dtype=torch.float64),
    )
    a, b = student[1, 2], teacher[1, 2]
    assert torch.isclose(
        cosine_distance(student, teacher)[1, 2], 1 - (a @ b) / (a @ a * (b @ b)).sqrt()
    )
    expected = torch.stack([d**2 / 2 if d < 1 else d - 0.5 for d in (a - b).abs()]).mean()
    assert torch.isclose(smooth_l1_distance(student, teacher)[1, 2], expected)


def test_standardization_is_by_the_first_batch() -> None:
    tokens = torch.randn(4, 5, 3) * torch.tensor([1.0, 10, 0]) + 2
    adapter = StandardizeChannels(tokens)
    rows = adapter(tokens).flatten(0, 1)
    assert torch.allclose(rows.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(rows.std(0, correction=0), torch.tensor([1.0, 1, 0]), atol=1e-5)
    assert torch.allclose(adapter(tokens[:1]), adapter(tokens)[:1])
    assert set(adapter.state_dict()) == {"mean", "scale"}
