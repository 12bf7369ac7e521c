"""Groups of texts, and both losses on the student's texts."""

from __future__ import annotations

import copy

import pytest
import torch

from instil.core import Batch, Net
from instil.generation.options import Sampling
from instil.generation.rollout_options import Rollouts
from instil.objectives.logits.reverse_kl import ReverseKL
from instil.schemes.language.kdrl import KDRL
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.texts import LENGTH, SAMPLING, VOCABULARY, net, prompts, timed


def scheme(**options: object) -> KDRL:
    """Return a prepared scheme with groups of three texts."""
    built = KDRL(
        net(8),
        Frozen(net(8, 1)),
        {"reverse_kl": ReverseKL()},
        group_size=3,
        reward="token_accuracy",
        sampling=SAMPLING,
        **options,  # type: ignore[arg-type]
    )
    built.prepare(timed())
    return built


@pytest.mark.parametrize("distils_solved", [True, False])
def test_contracts(distils_solved: bool) -> None:
    check_scheme(
        lambda: KDRL(
            net(8),
            Frozen(net(8, 1)),
            {"reverse_kl": ReverseKL()},
            distils_solved=distils_solved,
            reward="token_accuracy",
            policy_weight=1e-3,  # the value of a policy loss need not fall
            sampling=SAMPLING,
        ),
        prompts,
    )


def test_the_texts_of_a_group_differ_and_do_not_depend_on_the_batch() -> None:
    run = scheme()
    text = run.before_step(timed())["student_text"]
    first, second = text["token"].chunk(3)[:2]
    assert not torch.equal(first, second)
    half = {key: value[:8] if value.ndim else value for key, value in timed().items()}
    of_half = run.before_step(half)["student_text"]
    assert torch.equal(of_half["token"].chunk(3)[1], second[:8])


def test_the_policy_loss_has_the_gradient_of_reinforce() -> None:
    run = scheme()
    batch = run.before_step(timed())
    text = batch["student_text"]
    (update,) = run.step(batch)
    parameter = next(part for part in run.student.parameters() if part.ndim == 2)
    (gradient,) = torch.autograd.grad(update.losses["policy"], parameter)
    is_text = text["valid"]
    log_probs = run.student(text)["logits"].log_softmax(-1)
    chosen = log_probs.gather(-1, text["token"].clamp_min(0)[..., None]).squeeze(-1)
    advantage = text["advantage"][:, None].expand_as(chosen)
    expected = -(advantage * chosen)[is_text].mean()
    (expected_gradient,) = torch.autograd.grad(expected, parameter)
    torch.testing.assert_close(gradient, expected_gradient)
    assert gradient.abs().sum() > 0


def test_a_text_of_earlier_weights_has_a_clipped_ratio() -> None:
    run = scheme(rollouts=Rollouts(staleness=1), clip=0.1)
    batch = run.before_step(timed())
    text = batch["student_text"]
    with torch.no_grad():
        for parameter in run.student.parameters():
            parameter.mul_(1.2)
    (update,) = run.step(batch)
    log_probs = run.student(text)["logits"].log_softmax(-1)
    chosen = log_probs.gather(-1, text["token"].clamp_min(0)[..., None]).squeeze(-1)
    ratio = (chosen - text["log_probability"]).exp()[text["valid"]]
    assert (ratio > 1.1).any()
    assert (ratio < 0.9).any()
    advantage = text["advantage"][:, None].expand_as(chosen)[text["valid"]]
    expected = -torch.min(ratio * advantage, ratio.clip(0.9, 1.1) * advantage).mean()
    torch.testing.assert_close(update.losses["policy"], expected)


def test_solved_texts_are_left_out_of_the_distillation_only() -> None:
    class Solved(KDRL):
        """Every second row is correct."""

        def reward(self, text: Batch, reference: torch.Tensor) -> torch.Tensor:
            return (torch.arange(len(reference)) % 2).float()

    run = Solved(
        net(8),
        Frozen(net(8, 1)),
        {"reverse_kl": ReverseKL()},
        distils_solved=False,
        sampling=SAMPLING,
    )
    run.prepare(timed())
    batch = run.before_step(timed())
    text = batch["student_text"]
    counts = run.counts(batch)
    assert counts["policy"] == text["valid"].sum()
    assert counts["reverse_kl"] == text["valid"][::2].sum()


class Constant(torch.nn.Module):
    """Language model that always writes the token 3."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(VOCABULARY))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return 90.0 * torch.nn.functional.one_hot(torch.full_like(ids, 3), VOCABULARY) + self.bias


@pytest.mark.parametrize("min_prompt_tokens", [1, 4])
def test_a_prompt_with_the_beginning_of_an_answer_leaves_the_reward_of_the_rest(
    min_prompt_tokens: int,
) -> None:
    nets = [Net(Constant(), lambda model, batch: {"logits": model(batch["input_ids"])})] * 2
    run = KDRL(
        nets[0],
        Frozen(copy.deepcopy(nets[1])),
        {"reverse_kl": ReverseKL()},
        sampling=Sampling(min_prompt_tokens=min_prompt_tokens),
        distils_solved=False,
    )
    ids = torch.full((4, LENGTH), 3)
    valid = torch.arange(LENGTH).expand(4, -1) > 0
    label = ids.masked_fill(~valid, -100)
    # One answer differs from the text in its first token, another one in its last.
    label[2, 1] = label[3, -1] = 5
    rows = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "valid": valid}
    batch = timed() | rows | {"label": label, "index": torch.arange(4)}
    run.prepare(batch)
    distilled = run.before_step(batch)["distilled_text"]["valid"].any(1)
    is_wrong = [False, False, min_prompt_tokens == 1, True]
    assert distilled.tolist() == is_wrong * run.group_size


def test_wrong_options_are_refused() -> None:
    for sampling in (Sampling(0.5), Sampling(top_p=0.9)):
        with pytest.raises(ValueError, match=r"scheme\.sampling: .* Expected temperature 1"):
            KDRL(net(8), Frozen(net(8, 1)), {"reverse_kl": ReverseKL()}, sampling=sampling)
    command = ["llama-server", "-m", "{file}"]
    server = Rollouts(server="llama_cpp", url="http://127.0.0.1:9", folder="x", command=command)
    with pytest.raises(ValueError, match=r"scheme\.rollouts\.server: .* the loss policy needs"):
        KDRL(net(8), Frozen(net(8, 1)), {"reverse_kl": ReverseKL()}, rollouts=server)
    unlabelled = {key: value for key, value in timed().items() if key != "label"}
    run = KDRL(net(8), Frozen(net(8, 1)), {"reverse_kl": ReverseKL()}, sampling=SAMPLING)
    with pytest.raises(ValueError, match="Expected rows with answers"):
        run.prepare(unlabelled)
