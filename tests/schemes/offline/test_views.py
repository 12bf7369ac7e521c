"""Both networks read rotated views."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Batch, Net
from instil.networks.cnn import cnn
from instil.objectives.features.jacobian import Jacobian
from instil.objectives.logits.kd import KD
from instil.objectives.relations.sskd import SSKD
from instil.schemes.offline.offline import Offline
from instil.schemes.offline.views import Views, split_views, with_views
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests import nets
from tests.nets import count_calls
from tests.parity import SameViews


def images(seed: int = 0, size: int = 16) -> Batch:
    inputs = nets.batch(size, seed)
    return {
        "image": torch.rand(size, 1, 5, 5, generator=torch.Generator().manual_seed(seed)),
        **{key: inputs[key] for key in ("label", "index")},
    }


def net(width: int, seed: int = 0, norm: str = "none") -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = cnn(5, width=width, stages=2, norm=norm)
    return Net(
        model,
        taps={"embedding": "head:in", "head": "head:weight", "features": ["stages.0", "stages.1"]},
    )


def test_contracts() -> None:
    check_scheme(
        lambda: Views(net(2), Frozen(net(3, 1)), {"views": SameViews(), "kd": KD()}),
        lambda step: images(step),
    )


def test_the_views_are_the_outputs_for_the_rotated_images() -> None:
    student, teacher, batch = net(2), net(3, 1), images()
    scheme = Views(student, Frozen(teacher), {"sskd": SSKD()})
    for one, outputs in zip((student, teacher), scheme.forward_both(batch), strict=True):
        assert torch.allclose(outputs["logits"], one(batch)["logits"], atol=1e-6)
        for view in range(3):
            expected = one(
                {
                    "image": torch.stack([torch.rot90(x[0], view + 1) for x in batch["image"]])[
                        :, None
                    ]
                }
            )
            assert torch.allclose(outputs["view_logits"][:, view], expected["logits"], atol=1e-6)
            assert torch.allclose(
                outputs["view_embedding"][:, view], expected["embedding"], atol=1e-6
            )
            assert torch.allclose(
                outputs["view_features"][1][:, view], expected["features"][1], atol=1e-6
            )
        assert outputs["head"][0].shape == one(batch)["head"][0].shape
        assert "view_head" not in outputs
        assert not torch.allclose(outputs["view_logits"][:, 0], outputs["logits"])


def test_sskd_is_that_of_the_views() -> None:
    student, teacher, batch = net(2), net(3, 1), images()
    scheme = Views(student, Frozen(teacher), {"sskd": SSKD()})
    scheme.prepare(batch)
    update = next(iter(scheme.step(batch)))
    student_outputs = split_views(student(with_views(batch)), 16)
    teacher_outputs = split_views(teacher(with_views(batch)), 16)
    assert torch.allclose(
        update.losses["sskd"],
        scheme.objectives["sskd"](student_outputs, teacher_outputs, batch),
        rtol=1e-5,
    )
    update.losses["sskd"].backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_each_net_runs_once_and_the_teacher_computes_the_roles_that_are_read() -> None:
    student, teacher = net(2), net(3, 1)
    scheme = Views(student, Frozen(teacher), {"sskd": SSKD()})
    scheme.prepare(images())
    calls = [count_calls(one.model) for one in (student, teacher)]
    assert set(scheme.forward_both(images())[1]) == {
        "logits",
        "view_logits",
        "embedding",
        "view_embedding",
    }
    assert [count() for count in calls] == [1, 1]


def test_batch_norm_takes_its_statistics_over_images_and_views() -> None:
    student, batch = net(2, norm="batch").train(), images()
    Views(student, Frozen(net(3, 1)), {"kd": KD()}).forward_both(batch)
    first = next(part for part in student.modules() if isinstance(part, nn.BatchNorm2d))
    convolution = next(part for part in student.modules() if isinstance(part, nn.Conv2d))
    assert first.running_mean is not None
    with torch.no_grad():
        turned = torch.cat([torch.rot90(batch["image"], turns, (2, 3)) for turns in range(4)])
        assert torch.allclose(
            first.running_mean, 0.1 * convolution(turned).mean((0, 2, 3)), atol=1e-6
        )


def test_members_of_an_ensemble_have_views_too() -> None:
    outputs = Views(net(2), Ensemble([net(3, 1), net(4, 2)]), {"kd": KD()}).forward_both(images())[
        1
    ]
    assert [member["logits"].shape for member in outputs["members"]] == [(16, 5)] * 2
    assert [member["logits"].shape for member in outputs["view_members"]] == [(16, 3, 5)] * 2
    assert outputs["members"][0]["head"][0].shape == (5, 6)


def test_what_reads_no_view_learns_from_the_images_alone() -> None:
    batch = images() | {
        "step": torch.tensor(0),
        "progress": torch.tensor(0.0),
        "seed": torch.tensor(0),
    }
    for objective in (KD, Jacobian):
        losses = []
        for kind in (Views, Offline):
            torch.manual_seed(0)
            scheme = kind(net(2), Frozen(net(3, 1)), {"it": objective()})
            scheme.prepare(batch)
            losses.append(next(iter(scheme.step(batch))).losses["it"])
        assert torch.allclose(losses[0], losses[1], rtol=1e-4)


def test_images_that_cannot_be_rotated_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"Expected a square 'image' \(N, C, H, H\), got shape \(2, 1, 3, 4\)",
    ):
        with_views({"image": torch.zeros(2, 1, 3, 4)})
    with pytest.raises(
        ValueError, match=r"Expected 'image' \(N, C, H, H\) in the batch, got x, label, index"
    ):
        with_views(nets.batch())


def test_exports_the_student() -> None:
    student = net(2)
    assert Views(student, Frozen(net(3, 1)), {"kd": KD()}).export() is student
