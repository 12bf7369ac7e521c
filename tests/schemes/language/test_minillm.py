"""Advantages, the policy gradient, and its sum with the single-step part."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from instil.generation.options import Sampling
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.reverse_kl import ReverseKL
from instil.schemes.language.minillm import MiniLLM, advantages, policy_gradient_loss
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.texts import SAMPLING, net, prompts, timed


@pytest.mark.parametrize("mix", [0.0, 0.2])
def test_contracts(mix: float) -> None:
    goals = {"reverse_kl": ReverseKL(), "cross_entropy": CrossEntropy()}
    check_scheme(
        lambda: MiniLLM(net(8), Frozen(net(8, 1)), dict(goals), teacher_mix=mix, sampling=SAMPLING),
        prompts,
    )


def test_advantages_are_the_mean_of_the_later_rewards_of_the_text() -> None:
    reward = torch.tensor([[0.0, 1.0, 2.0, 6.0, 0.0]])
    mask = torch.tensor([[0, 1, 1, 1, 0]])
    assert advantages(reward, mask)[0, 1:4].tolist() == [4.0, 6.0, 0.0]
    assert advantages(reward, mask, length_normalized=False)[0, 1:4].tolist() == [8.0, 6.0, 0.0]
    assert advantages(reward, mask, include_current=True)[0, 1:4].tolist() == [3.0, 4.0, 6.0]
    assert advantages(reward, mask, 0.5, length_normalized=False)[0, 1:4].tolist() == [
        0.5 * 2 + 0.25 * 6,
        3.0,
        0.0,
    ]


def test_both_parts_add_up_to_the_gradient_of_the_reverse_kl_of_texts() -> None:
    """Expectation over all texts of two tokens from a vocabulary of three."""
    generator = torch.Generator().manual_seed(0)
    first, second, first_t, second_t = (
        torch.randn(*shape, dtype=torch.float64, generator=generator)
        for shape in ((3,), (3, 3), (3,), (3, 3))
    )
    first.requires_grad_()
    second.requires_grad_()

    def log(text: tuple[int, int], one: Tensor, two: Tensor) -> Tensor:
        return torch.stack([one.log_softmax(-1)[text[0]], two.log_softmax(-1)[text[0], text[1]]])

    def kl(one: Tensor, other: Tensor) -> Tensor:
        return (one.softmax(-1) * (one.log_softmax(-1) - other.log_softmax(-1))).sum(-1)

    texts = list(itertools.product(range(3), range(3)))
    of_texts = torch.zeros((), dtype=torch.float64)
    estimated = torch.zeros((), dtype=torch.float64)
    for text in texts:
        log_s, log_t = log(text, first, second), log(text, first_t, second_t)
        probability = log_s.sum().exp()
        of_texts = of_texts + probability * (log_s - log_t).sum()
        now, mask = log_s.detach()[None], torch.ones(1, 2)
        advantage = advantages(log_t[None] - now, mask, length_normalized=False)
        policy = policy_gradient_loss(log_s[None], now, advantage, mask, reduction="none").sum()
        single = kl(first, first_t) + kl(second[text[0]], second_t[text[0]])
        estimated = estimated + probability.detach() * (policy + single)
    expected_gradient = torch.autograd.grad(of_texts, [first, second], retain_graph=True)
    gradient = torch.autograd.grad(estimated, [first, second])
    for one, other in zip(gradient, expected_gradient, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_tokens_are_sampled_from_the_mixture_of_student_and_teacher() -> None:
    student, teacher = net(8), net(8, 1)
    scheme = MiniLLM(
        student, Frozen(teacher), {"reverse_kl": ReverseKL()}, teacher_mix=0.3, sampling=SAMPLING
    )
    own = scheme.before_step(timed())["student_text"]
    p, q = (
        side(own)["logits"].softmax(-1).gather(-1, own["token"].clamp_min(0)[..., None]).squeeze(-1)
        for side in (teacher, student)
    )
    mixed = (0.3 * p + 0.7 * q)[own["valid"]]
    assert torch.allclose(own["log_probability"][own["valid"]].exp(), mixed, atol=1e-6)


def test_each_objective_is_computed_on_its_text() -> None:
    scheme = MiniLLM(
        net(8),
        Frozen(net(8, 1)),
        {"reverse_kl": ReverseKL(), "cross_entropy": CrossEntropy()},
        sampling=SAMPLING,
    )
    batch = scheme.before_step(timed())
    counts = scheme.counts(batch)
    assert float(counts["cross_entropy"]) == float((timed()["label"] != -100).sum())
    assert (
        float(counts["reverse_kl"])
        == float(counts["policy"])
        == float(batch["student_text"]["valid"].sum())
    )
    with pytest.raises(
        ValueError,
        match=(
            r"scheme\.student_text_objectives: unknown objective 'reverse_k'\. Did you mean "
            r"reverse_kl"
        ),
    ):
        MiniLLM(
            net(8),
            Frozen(net(8, 1)),
            {"reverse_kl": ReverseKL()},
            student_text_objectives=["reverse_k"],
        )


def test_sampling_from_another_distribution_is_an_error() -> None:
    for sampling, values in (
        (Sampling(0.7), r"0\.7 and 1\.0"),
        (Sampling(top_p=0.9), r"1.* and 0\.9"),
    ):
        with pytest.raises(ValueError, match=f"Expected temperature 1 and top_p 1, got {values}"):
            MiniLLM(net(8), Frozen(net(8, 1)), {"reverse_kl": ReverseKL()}, sampling=sampling)
