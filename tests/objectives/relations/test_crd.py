from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Batch, Objectives, Outputs
from instil.objectives.bases.contrast import log_normaliser, scaled_similarities
from instil.objectives.relations.crd import CRD, crd_loss
from instil.testing import check_objective

SMALL = {"dim": 8, "negatives": 5, "size": 24}


def sample(index: list[int], seed: int = 0) -> tuple[Outputs, Outputs, Batch]:
    """Return outputs and batch that depend on the sample index only."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(100, 6, generator=generator),
        torch.randn(100, 9, generator=generator),
    )
    rows = torch.tensor(index)
    clock = {"step": torch.tensor(seed), "seed": torch.tensor(0), "progress": torch.tensor(0.0)}
    return {"embedding": student[rows]}, {"embedding": teacher[rows]}, {"index": rows, **clock}


def make(memory: str) -> CRD:
    torch.manual_seed(0)
    objective = CRD(memory=memory, **SMALL)  # type: ignore[arg-type]
    objective.build(*sample([0])[:2])
    return objective


@pytest.mark.parametrize("normaliser", [1.0, 40.0])
def test_loss_agrees_with_a_plain_loop(normaliser: float) -> None:
    positive, negative = (
        torch.randn(4, dtype=torch.float64),
        3 * torch.randn(4, 6, dtype=torch.float64),
    )
    samples, epsilon, noise = 50, 1e-7, 6 / 50
    expected = []
    for own, others in zip(positive.numpy(), negative.numpy(), strict=True):
        p = np.exp(own) / normaliser
        value = -np.log(p / (p + noise + epsilon))
        for other in others:
            value -= np.log(noise / (np.exp(other) / normaliser + noise + epsilon))
        expected.append(value)
    values = crd_loss(positive, negative, samples, math.log(normaliser), reduction="none")
    assert np.allclose(values, expected, rtol=1e-10)
    assert np.isclose(
        float(crd_loss(positive, negative, samples, math.log(normaliser))), np.mean(expected)
    )


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_value_and_gradient_are_finite(scale: float) -> None:
    positive, negative = (
        (torch.randn(4) * scale).requires_grad_(),
        (torch.randn(4, 6) * scale).requires_grad_(),
    )
    loss = crd_loss(positive, negative, 1_000_000, 12.0)
    assert torch.isfinite(loss)
    for gradient in torch.autograd.grad(loss, (positive, negative)):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("dim", "temperature"), [(8, 0.2), (64, 0.07), (128, 0.07)])
def test_normaliser_is_what_the_authors_estimate_of_random_memories(
    dim: int, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(
        torch.randn(200_000, dim, generator=generator, dtype=torch.float64), dim=1
    )
    estimate = (unit[:, 0] / temperature).exp().mean() * 1000
    assert math.exp(log_normaliser(1000, dim, temperature)) == pytest.approx(
        float(estimate), rel=0.15
    )


@pytest.mark.parametrize("temperature", [1e-3, 0.07, 1.0, 100.0])
def test_normaliser_is_never_beyond_the_largest_score(temperature: float) -> None:
    assert math.log(10) <= log_normaliser(10, 2, temperature) <= math.log(10) + 1 / temperature


@pytest.mark.parametrize("memory", ["bank", "queue"])
def test_forward_agrees_with_a_plain_loop(memory: str) -> None:
    objective = make(memory)
    student, teacher, batch = sample([3, 20, 7])
    values = objective(student, teacher, batch)
    rows = objective.remembered.draw(batch, 5, f"{objective.stream}.negatives")
    log_z = log_normaliser(24, 8, 0.07)
    for n, index in enumerate([3, 20, 7]):
        student_embedding, teacher_embedding = (
            side[n] for side in objective.embed(student, teacher)
        )
        expected = torch.zeros(())
        for query, bank, other in (
            (student_embedding, objective.remembered["teacher"], teacher_embedding),
            (teacher_embedding, objective.remembered["student"], student_embedding),
        ):
            positive = query @ (bank[index] if memory == "bank" else other) / 0.07
            negative = torch.stack([query @ bank[row] for row in rows[n]]) / 0.07
            expected = expected + crd_loss(positive[None], negative[None], 24, log_z)
        assert torch.allclose(values[n], expected, rtol=1e-4)


@pytest.mark.parametrize("memory", ["bank", "queue"])
def test_gradients_reach_the_student_and_both_heads(memory: str) -> None:
    objective = make(memory)
    student, teacher, batch = sample([3, 20, 7])
    student["embedding"].requires_grad_()
    objective(student, teacher, batch).mean().backward()
    for tensor in (student["embedding"], *objective.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_the_student_learns_from_its_own_term_alone() -> None:
    """In the queue the other side's embedding stands for the bank's row, through which no gradient
    goes either.
    """
    objective = make("queue")
    student, teacher, batch = sample([3, 20, 7])
    student["embedding"].requires_grad_()
    (whole,) = torch.autograd.grad(objective(student, teacher, batch).sum(), student["embedding"])
    student_embedding, teacher_embedding = objective.embed(student, teacher)
    scores = scaled_similarities(student_embedding, objective.remembered["teacher"], 0.07)
    negative = scores.gather(
        1, objective.remembered.draw(batch, 5, f"{objective.stream}.negatives")
    )
    own = crd_loss(
        (student_embedding * teacher_embedding.detach()).sum(1) / 0.07,
        negative,
        24,
        log_normaliser(24, 8, 0.07),
        reduction="none",
    ).sum()
    assert torch.allclose(
        whole, torch.autograd.grad(own, student["embedding"])[0], rtol=1e-4, atol=1e-6
    )


def steps(memory: str, cuts: list[int]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return losses of some steps of a batch of 10 with this split, and the final state."""
    objective = make(memory)
    objectives, losses = Objectives({"crd": objective}), []
    for step in range(4):
        index = [(7 * step + 3 * n) % 24 for n in range(10)]
        row_lists: dict[str, list[Tensor]] = {}
        total = torch.zeros(())
        for part in torch.tensor(index).split(cuts):
            student, teacher, batch = sample(part.tolist(), seed=step)
            before = copy.deepcopy(objective.state_dict())
            update = objectives(student, teacher, batch)
            assert all(
                torch.equal(value, before[name]) for name, value in objective.state_dict().items()
            )
            total = total + update.losses["crd"].detach() * len(part) / 10
            for name, rows in update.state_updates.items():
                row_lists.setdefault(name, []).append(rows)
        objectives.after_step({name: torch.cat(rows) for name, rows in row_lists.items()})
        losses.append(total)
    return losses, objective.state_dict()


@pytest.mark.parametrize("memory", ["bank", "queue"])
def test_the_cut_of_the_batch_does_not_matter(memory: str) -> None:
    whole, after = steps(memory, [10])
    pieces, same = steps(memory, [1, 4, 3, 2])
    assert torch.allclose(torch.stack(whole), torch.stack(pieces), rtol=1e-5)
    for name in after:
        assert torch.allclose(after[name], same[name], atol=1e-6), name
    start = make(memory).state_dict()
    assert not torch.equal(after["remembered.student"], start["remembered.student"])
    assert not torch.equal(after["remembered.teacher"], start["remembered.teacher"])


def test_the_queue_is_first_in_first_out() -> None:
    objective = make("queue")
    for step in range(3):
        index = list(range(10 * step, 10 * step + 10))
        student, teacher, batch = sample(index)
        objective.after_step(objective.state_updates(student, teacher, batch))
    assert objective.remembered.owner.tolist() == [24, 25, 26, 27, 28, 29, *range(6, 24)]
    student, teacher, _ = sample(objective.remembered.owner.tolist())
    student_embedding, teacher_embedding = objective.embed(student, teacher)
    assert torch.allclose(objective.remembered["student"], student_embedding, atol=1e-6)
    assert torch.allclose(objective.remembered["teacher"], teacher_embedding, atol=1e-6)
    student, teacher, batch = sample(list(range(40, 80)))  # more than the queue holds
    objective.after_step(objective.state_updates(student, teacher, batch))
    assert sorted(objective.remembered.owner.tolist()) == list(range(56, 80))


def test_the_bank_keeps_momentum_of_a_row() -> None:
    objective = make("bank")
    before = objective.remembered["student"].clone()
    rows = torch.nn.functional.normalize(torch.randn(1, 8), dim=1)
    objective.momentum = 0.75
    objective.after_step(
        {
            "index": torch.tensor([4]),
            "student": rows,
            "teacher": rows,
            "counts": torch.tensor([True]),
        }
    )
    moved = 0.75 * before[4] + 0.25 * rows[0]
    assert torch.allclose(objective.remembered["student"][4], moved / moved.norm(), atol=1e-6)


@pytest.mark.parametrize("memory", ["bank", "queue"])
def test_items_that_do_not_count_are_not_remembered(memory: str) -> None:
    with_padding, without = make(memory), make(memory)
    student, teacher, batch = sample([3, 20, 7, 9])
    valid = torch.tensor([True, False, True, False])
    with_padding.after_step(with_padding.state_updates(student, teacher, batch | {"valid": valid}))
    student, teacher, batch = sample([3, 7])
    without.after_step(without.state_updates(student, teacher, batch))
    for name, value in without.state_dict().items():
        assert torch.allclose(value, with_padding.state_dict()[name], atol=1e-6), name
    before = copy.deepcopy(without.state_dict())
    without.after_step(
        without.state_updates(student, teacher, batch | {"valid": torch.zeros(2, dtype=torch.bool)})
    )
    without.after_step({})
    assert all(torch.equal(value, before[name]) for name, value in without.state_dict().items())


def test_errors_are_clear() -> None:
    student, teacher, batch = sample([3, 24])
    with pytest.raises(
        ValueError,
        match="the bank has 24 rows and the batch holds index 24; size is the number of samples",
    ):
        make("bank")(student, teacher, batch)
    del batch["index"]
    with pytest.raises(ValueError, match="needs 'index' in the batch"):
        make("queue")(student, teacher, batch)
    with pytest.raises(ValueError, match=r"got 'bnk'\. Did you mean bank"):
        CRD(memory="bnk")  # type: ignore[arg-type]


def test_the_batch_instead_of_a_memory() -> None:
    objective = make("batch")
    student, teacher, batch = sample([3, 20, 7])
    assert objective.couples
    assert not make("queue").couples
    assert not list(objective.buffers())
    student_embedding, teacher_embedding = objective.embed(student, teacher)
    expected = torch.zeros(())
    for n in range(3):
        others = [m for m in range(3) if m != n]
        for query, side in (
            (student_embedding[n], teacher_embedding),
            (teacher_embedding[n], student_embedding),
        ):
            positive, negative = (
                query @ side[n] / 0.07,
                torch.stack([query @ side[m] for m in others]) / 0.07,
            )
            expected = (
                expected
                + crd_loss(positive[None], negative[None], 3, log_normaliser(3, 8, 0.07)) / 3
            )
    assert torch.allclose(objective(student, teacher, batch), expected, rtol=1e-4)
    assert objective.state_updates(student, teacher, batch) == {}
    objective.after_step({})


@pytest.mark.parametrize("memory", ["bank", "queue", "batch"])
def test_contracts(memory: str) -> None:
    check_objective(lambda: CRD(memory=memory, **SMALL))  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    positive, negative = torch.randn(4), torch.randn(4, 6)
    compiled = torch.compile(crd_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(positive, negative, 50, 3.0), crd_loss(positive, negative, 50, 3.0)
    )
