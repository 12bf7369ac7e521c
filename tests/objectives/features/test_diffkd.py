from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from instil.core import Objective
from instil.functional.diffusion.features import add_noise, denoise
from instil.functional.keyed_random import keyed_uniform
from instil.functional.noise import box_muller
from instil.objectives.features.diffkd import DiffKD, diffkd_loss
from instil.testing import check_objective, sample_outputs


def test_is_the_sum_of_its_three_errors(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    student, teacher = features("one map"), features("cnn", seed=1)
    batch = {"index": torch.arange(4), "step": torch.tensor(5)}
    objective = DiffKD(logits=False, diffusion_weight=0.3, autoencoder_weight=0.2, pairs=[[0, 1]])
    objective.build(student, teacher)
    denoiser = objective.adapters[0]
    target = teacher["features"][1]
    latent = denoiser.encode(target).detach()
    assert latent.shape == (4, 3, 4, 4)
    noise, other = (box_muller(batch, (3, 4, 4), f"{objective.stream}.0.noise.{i}") for i in (0, 1))
    time = (keyed_uniform(batch, 1, f"{objective.stream}.0.time")[:, 0] * 1000).long()
    projected = denoiser.project(student["features"][0])
    level = denoiser.level(denoiser.look(projected).mean((2, 3))).softmax(1)[:, 0]
    for n, value in enumerate(objective(student, teacher, batch)):
        row = slice(n, n + 1)
        mixed = level[n] * projected[row] + (1 - level[n]) * other[row]
        refined = denoiser.refine(denoise(mixed, denoiser.model, 5))
        expected = (refined - latent[row]).square().mean()
        expected = (
            expected
            + 0.3
            * (
                denoiser.model(add_noise(latent[row], noise[row], time[row]), time[row])
                - noise[row]
            )
            .square()
            .mean()
        )
        expected = (
            expected
            + 0.2 * (denoiser.decode(denoiser.encode(target[row])) - target[row]).square().mean()
        )
        assert torch.allclose(value, expected, rtol=1e-4)


def test_the_function_adds_squared_differences() -> None:
    student, teacher, one, other = (
        torch.randn(3, 2, 4, 5),
        torch.randn(3, 2, 4, 5),
        torch.rand(3),
        torch.rand(3),
    )
    expected = ((student - teacher) ** 2).sum((1, 2, 3)) / 40 + 0.5 * one + 2 * other
    assert torch.allclose(diffkd_loss(student, teacher, one, other, 0.5, 2.0, "none"), expected)
    assert torch.allclose(diffkd_loss(student, teacher, one, other, 0.5, 2.0), expected.mean())
    with pytest.raises(ValueError, match="diffkd_loss: the student's shape"):
        diffkd_loss(student, teacher[:, :1], one, other)


def test_the_autoencoder_learns_from_reconstruction_alone(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    objective = DiffKD(logits=False, autoencoder_weight=0.0)
    objective.build(student, teacher)
    objective(student, teacher, {"index": torch.arange(4)}).sum().backward()
    denoiser = objective.adapters[0]
    assert all(
        parameter.grad is None or not parameter.grad.any()
        for part in (denoiser.encode, denoiser.decode)
        for parameter in part.parameters()
    )
    assert all(parameter.grad.any() for parameter in denoiser.model.parameters())


def test_logits_are_denoised_too() -> None:
    student, teacher, batch = sample_outputs()
    with_logits, without = DiffKD(), DiffKD(logits=False)
    for objective in (with_logits, without):
        torch.manual_seed(0)
        objective.build(student, teacher)
    moved = teacher | {"logits": -teacher["logits"]}
    assert torch.equal(without(student, teacher, batch), without(student, moved, batch))
    assert not torch.allclose(
        with_logits(student, teacher, batch), with_logits(student, moved, batch)
    )
    refined = with_logits.denoiser[0](
        *(side["logits"][:, :, None, None] for side in (student, teacher)),
        batch,
        5,
        f"{with_logits.stream}.logits",
    )
    divergence = nn.functional.kl_div(
        refined[0].flatten(1).log_softmax(1), teacher["logits"].softmax(1), reduction="none"
    ).sum(1)
    expected = without(student, teacher, batch) + divergence + refined[2]
    assert torch.allclose(with_logits(student, teacher, batch), expected, rtol=1e-4)


def test_invalid_inputs_are_errors() -> None:
    student, teacher, _ = sample_outputs()
    dense = {"logits": torch.randn(8, 3, 7)}
    with pytest.raises(ValueError, match="Set logits: false"):
        DiffKD().build(student | dense, teacher | dense)
    with pytest.raises(ValueError, match=r"Expected at most 500.*got 501"):
        DiffKD(steps=501)


def test_any_pair_of_networks(check_pair: Callable[[Objective], None]) -> None:
    check_pair(DiffKD(logits=False))


def test_contracts() -> None:
    check_objective(lambda: DiffKD(reduction=1, pairs=[[1, 0], [2, 2]]))


def test_compiles_without_graph_breaks() -> None:
    def whole(values: Tensor) -> Tensor:
        return denoise(values, lambda x, time: x.tanh() * (1 + time), 3)

    values = torch.randn(2, 3, 2, 2)
    assert torch.allclose(
        torch.compile(whole, fullgraph=True, backend="eager")(values), whole(values)
    )
