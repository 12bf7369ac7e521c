"""Texts of teacher and student that a verifier accepts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.generation.options import Sampling
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.reverse_kl import ReverseKL
from instil.schemes.language.kdrl import KDRL
from instil.schemes.language.sequence_level import SequenceLevel
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.texts import END, SAMPLING, net, prompts, timed


def begins_low(token: Tensor, reference: Tensor) -> Tensor:
    """Accept texts whose first token is below 5."""
    first = token.gather(1, (token >= 0).int().argmax(1, keepdim=True)).squeeze(1)
    return (first >= 0) & (first < 5)


def make(candidates: int) -> SequenceLevel:
    scheme = SequenceLevel(
        net(8),
        Frozen(net(8, 1)),
        {"cross_entropy": CrossEntropy()},
        sampling=SAMPLING,
        verified=True,
        candidates=candidates,
    )
    scheme.set_verifier(begins_low)
    scheme.prepare(prompts())
    return scheme


def test_contracts() -> None:
    check_scheme(lambda: make(3), prompts)


def test_only_accepted_texts_count_and_more_candidates_accept_more() -> None:
    counted = {}
    for candidates in (1, 8):
        batch = make(candidates).before_step(timed())
        is_used = batch["valid"].any(1)
        assert begins_low(batch["token"], batch["token"])[is_used].all()
        assert (batch["label"][~is_used] == UNLABELLED).all()
        counted[candidates] = is_used
    has_text = timed()["valid"].any(1)
    assert counted[1].sum() < counted[8].sum() <= has_text.sum()
    assert (counted[8] | ~counted[1]).all()


def test_the_text_of_a_row_does_not_depend_on_the_batch() -> None:
    whole = make(4).before_step(timed())
    half = make(4).before_step(
        {key: value[:5] if value.ndim else value for key, value in timed().items()}
    )
    assert torch.equal(whole["token"][:5], half["token"])


def test_a_teacher_without_correct_texts_is_an_error() -> None:
    scheme = make(2)
    scheme.set_verifier(lambda token, reference: torch.zeros(len(token), dtype=torch.bool))
    with pytest.raises(ValueError, match=r"accepted none of the first \d+ texts"):
        scheme.before_step(prompts(size=80) | {"seed": torch.tensor(0), "step": torch.tensor(0)})


def none_accepted() -> SequenceLevel:
    scheme = make(1)
    scheme.set_verifier(lambda token, reference: torch.zeros(len(token), dtype=torch.bool))
    # The first batch is read before training, too, and may have no solved prompt.
    assert not scheme.before_step(timed(0, 0.0))["valid"].any()
    assert not scheme.before_step(timed(0, 0.0))["valid"].any()
    return scheme


def test_few_prompts_without_a_correct_text_are_an_error_in_the_second_pass() -> None:
    with pytest.raises(ValueError, match=r"accepted none of the first \d+ texts"):
        none_accepted().before_step(timed(0) | {"step": torch.tensor(1)})


def test_few_prompts_without_a_correct_text_are_an_error_in_the_last_step() -> None:
    scheme = none_accepted()
    later = {key: value + 100 if key == "index" else value for key, value in timed(0).items()}
    clock = {"step": torch.tensor(1), "progress": torch.tensor(1 / 3)}
    assert not scheme.before_step(later | clock)["valid"].any()
    last = {key: value + 200 if key == "index" else value for key, value in timed(0).items()}
    clock = {"step": torch.tensor(2), "progress": torch.tensor(2 / 3)}
    with pytest.raises(ValueError, match=r"accepted none of the first \d+ texts"):
        scheme.before_step(last | clock)


def test_the_accepted_texts_before_a_resumption_are_not_known() -> None:
    clock = {"step": torch.tensor(9), "progress": torch.tensor(0.9)}
    assert not none_accepted().before_step(timed(0) | clock)["valid"].any()


def test_the_reward_of_kdrl_is_the_verifier() -> None:
    scheme = KDRL(
        net(8),
        Frozen(net(8, 1)),
        {"reverse_kl": ReverseKL()},
        group_size=3,
        reward="verifier",
        sampling=SAMPLING,
    )
    with pytest.raises(ValueError, match=r"Set data\.verifier"):
        scheme.prepare(timed())
    scheme.set_verifier(begins_low)
    scheme.prepare(timed())
    text = scheme.before_step(timed())["student_text"]
    rewards = begins_low(text["token"], text["token"]).float().view(3, -1)
    advantage = text["advantage"].view(3, -1)
    differs = rewards.std(0) > 0
    assert differs.any()
    assert torch.equal((advantage > 0)[:, differs], (rewards > 0)[:, differs])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 2}, "Set verified to true"),
        ({"candidates": 2, "verified": True, "sampling": Sampling(0.0)}, "temperature above 0"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceLevel(
            net(8),
            Frozen(net(8, 1)),
            {"cross_entropy": CrossEntropy()},
            **options,  # type: ignore[arg-type]
        )


def test_verification_without_a_verifier() -> None:
    scheme = SequenceLevel(
        net(8),
        Frozen(net(8, 1)),
        {"cross_entropy": CrossEntropy()},
        sampling=Sampling(eos_token_id=END),
        verified=True,
    )
    with pytest.raises(ValueError, match=r"Set data\.verifier"):
        scheme.prepare(prompts())
