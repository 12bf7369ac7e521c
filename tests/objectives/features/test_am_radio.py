from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from instil.core import Batch, Net, Objective, Objectives, Outputs
from instil.engine import Optimization
from instil.objectives.features.am_radio import (
    AMRADIO,
    am_radio_spatial_loss,
    am_radio_summary_loss,
)
from instil.objectives.features.phi_s import PhiS
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.fit import Training, fit
from tests.schemes.stages import images, staged


def test_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(2, 3, 4, dtype=torch.float64),
        torch.randn(2, 3, 4, dtype=torch.float64),
    )

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(1 - a @ b / np.sqrt((a @ a) * (b @ b)))

    for n in range(2):
        pairs = list(zip(student[n].numpy(), teacher[n].numpy(), strict=True))
        apart = [np.abs(a - b) for a, b in pairs]
        absolute = [np.where(d < 1, d**2 / 2, d - 0.5).mean() for d in apart]
        expected = np.mean(
            [0.9 * cosine(a, b) + 0.1 * one for (a, b), one in zip(pairs, absolute, strict=True)]
        )
        assert np.isclose(
            am_radio_spatial_loss(student, teacher, reduction="none")[n], expected, rtol=1e-10
        )
        assert np.isclose(
            am_radio_summary_loss(student[:, 0], teacher[:, 0], "none")[n],
            cosine(*pairs[0]),
            rtol=1e-10,
        )


def outputs(seed: int, channels: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    return {
        "features": torch.randn(6, channels, 2, 2, generator=generator),
        "embedding": torch.randn(6, channels, generator=generator),
    }


def test_is_the_mean_over_teachers_of_summary_and_patches() -> None:
    student, teachers = outputs(0, 4), (outputs(1, 6), outputs(2, 4))
    objective = AMRADIO(summary=0.5, standardize="none")
    objective.build(student, {"members": teachers})
    expected = torch.zeros(6)
    for index, member in enumerate(teachers):
        student_tokens = objective.adapters[index](student["features"]).flatten(2).mT
        spatial = am_radio_spatial_loss(
            student_tokens, member["features"].flatten(2).mT, reduction="none"
        )
        expected += (
            0.5
            * am_radio_summary_loss(
                objective.heads[index](student["embedding"]), member["embedding"], "none"
            )
            + spatial
        ) / 2
    assert torch.allclose(objective(student, {"members": teachers}, {}), expected, atol=1e-6)


def every(batches: list[Batch], teacher: Frozen) -> torch.Tensor:
    return torch.cat(
        [teacher(batch)["features"][-1].flatten(2).mT.flatten(0, 1) for batch in batches]
    )


def test_fit_collects_statistics_over_many_samples_without_labels() -> None:
    """The statistics are those of all samples together, whatever batch came first; a label would
    have been missed.
    """
    loader, teacher = [images(seed) for seed in range(4)], Frozen(staged(6))
    batch_keys: list[set[str]] = []
    teacher.register_forward_pre_hook(lambda _, inputs: batch_keys.append(set(inputs[0])))
    objectives = Objectives(
        {"phi_s": PhiS(calibration_samples=64), "cross_entropy": CrossEntropy()}
    )
    scheme = Offline(staged(3), teacher, objectives)
    training = Training(steps=1, device="cpu", optimizer=Optimization("sgd", {"lr": 0.0}))
    before = torch.get_rng_state()
    fit(scheme, loader, training)
    assert torch.equal(torch.get_rng_state(), before)
    assert sum("label" not in keys for keys in batch_keys) == 4
    tokens = every(loader, teacher)
    standard = objectives["phi_s"].targets[0](tokens)  # type: ignore[union-attr,index]
    assert torch.allclose(standard.mean(0), torch.zeros(standard.shape[1]), atol=1e-4)
    assert torch.allclose(standard.var(0), torch.ones(standard.shape[1]), rtol=1e-3)
    alone = PhiS()
    alone.build(scheme.student(loader[0]), teacher(loader[0]))
    assert not torch.allclose(
        alone.targets[0](tokens).var(0), torch.ones(standard.shape[1]), rtol=0.05
    )


def embedding(width: int) -> Net:
    net = staged(width)
    return Net(net.model, taps=net.taps | {"embedding": "head:in"})


def test_statistics_use_the_configured_number_of_samples() -> None:
    for studies, batches in ((0, 1), (10, 1), (17, 2), (1000, 4)):
        loader, teacher, objective = (
            [images(seed) for seed in range(4)],
            Frozen(embedding(6)),
            AMRADIO(calibration_samples=studies, standardize="channels"),
        )
        fit(
            Offline(embedding(3), teacher, {"it": objective}),
            loader,
            Training(steps=1, device="cpu", optimizer=Optimization("sgd", {"lr": 0.0})),
        )
        rows = every(loader[:batches], teacher)
        assert torch.allclose(objective.targets[0].mean, rows.mean(0), atol=1e-5)
        assert torch.allclose(
            1 / objective.targets[0].scale, rows.std(0, correction=0).clamp_min(1e-6), rtol=1e-3
        )  # type: ignore[operator,arg-type]


def test_uncounted_samples_are_not_in_the_statistics() -> None:
    teacher = outputs(1, 6)
    objective = AMRADIO(standardize="channels")
    objective.build(outputs(0, 4), teacher)
    valid = torch.tensor([True, True, False, True, False, True])
    objective.load_statistics(
        objective.collect_statistics(teacher, {"index": torch.arange(6), "valid": valid})
    )
    assert torch.allclose(
        objective.class_targets[0].mean, teacher["embedding"][valid].mean(0), atol=1e-6
    )  # type: ignore[arg-type]


def test_any_pair_of_networks(check_pair: Callable[[Objective], None]) -> None:
    check_pair(AMRADIO())
