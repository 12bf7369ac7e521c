"""Source of sums with rationales."""

from __future__ import annotations

import pytest
import torch

from instil.data.sources.arithmetic import arithmetic
from instil.data.token_verifier import TokenVerifier
from instil.data.token_vocabulary import TokenSamples


def texts(samples: TokenSamples, prefix: str = "") -> list[tuple[str, str]]:
    """Return prompt and answer of each row."""
    batch = samples.__getitems__(range(len(samples)))
    rows = []
    for ids, valid, label in zip(
        *(batch[f"{prefix}{key}"] for key in ("input_ids", "valid", "label")), strict=True
    ):
        prompt = samples.text_of(ids[: int(valid.int().argmax()) + 1].tolist())
        rows.append((prompt, samples.text_of(label[valid].tolist()[:-1])))
    return rows


def test_answers_are_sums_and_rationales_their_digits() -> None:
    plain, reasoned = (arithmetic(2, 40, 20, rationale=use).train for use in ("ignore", "answer"))
    assert plain.facts == reasoned.facts
    for (prompt, answer), (same_prompt, whole) in zip(texts(plain), texts(reasoned), strict=True):
        first, second = map(int, prompt.rstrip("=").split("+"))
        assert int(answer) == first + second
        assert same_prompt == prompt
        assert whole.endswith(f"={answer}")
        assert whole.startswith(f"{first % 10}+{second % 10}+0={first % 10 + second % 10:02d}=")


def test_held_out_problems_do_not_depend_on_the_number_of_rows() -> None:
    small, large = arithmetic(2, 40, 20), arithmetic(2, 400, 20)
    assert torch.equal(small.test.label, large.test.label)
    problems = [
        prompt for part in (large.train, large.validation, large.test) for prompt, _ in texts(part)
    ]
    assert len(set(problems)) == len(problems) == 440


def test_the_rationale_is_a_task_of_its_own() -> None:
    samples = arithmetic(2, 40, 20, rationale="task").train
    assert samples.facts == arithmetic(2, 40, 20).train.facts
    answers, rationales = texts(samples), texts(samples, "rationale_")
    assert answers == texts(arithmetic(2, 40, 20).train)
    whole = texts(arithmetic(2, 40, 20, rationale="answer").train)
    for (prompt, answer), (other, rationale), (_, both) in zip(
        answers, rationales, whole, strict=True
    ):
        assert other == f"+{prompt}"
        assert rationale + answer == both
    part = samples.subset([5, 3])
    assert texts(part, "rationale_") == [rationales[5], rationales[3]]


def test_wrong_rationales_have_one_wrong_sum_and_the_answer_that_follows() -> None:
    samples = arithmetic(2, 40, 20, rationale="counterfactual").train
    assert texts(samples) == texts(arithmetic(2, 40, 20, rationale="answer").train)
    for (prompt, whole), (other, answer) in zip(
        texts(samples), texts(samples, "counterfactual_"), strict=True
    ):
        assert other.startswith(f"+{prompt}")
        right, wrong = whole[:-3].split("=")[:4], other[len(prompt) + 1 :].split("=")[:4]
        # Terms and sum of the last digits, then those of the first digits with the carry.
        is_wrong = [int(right[index]) != int(wrong[index]) for index in (1, 3)]
        assert is_wrong[0] or right[2] == wrong[2]
        assert any(is_wrong)
        assert wrong[2].endswith(f"+{wrong[1][0]}")
        assert answer == f"{wrong[3]}{wrong[1][1]}"
        assert answer != whole[-3:]


def test_rejected_texts_have_the_wrong_rationale_and_its_answer() -> None:
    samples = arithmetic(2, 40, 20, rationale="preference").train
    assert texts(samples) == texts(arithmetic(2, 40, 20, rationale="answer").train)
    wrong = texts(arithmetic(2, 40, 20, rationale="counterfactual").train, "counterfactual_")
    # There, the prompt begins with a plus sign and ends with the wrong rationale.
    whole = [f"{prompt}{answer}" for prompt, answer in wrong]
    rejected = [f"+{prompt}{text}" for prompt, text in texts(samples, "rejected_")]
    assert rejected == whole


def test_both_forms_of_the_right_answer_are_accepted() -> None:
    plain, reasoned = (arithmetic(2, 40, 20, rationale=use).test for use in ("ignore", "answer"))
    verify = TokenVerifier(plain)
    assert verify(plain.label, plain.label).all()
    assert verify(reasoned.label, plain.label).all()
    assert not verify(reasoned.label.roll(1, 0), plain.label).all()


def test_too_few_problems() -> None:
    with pytest.raises(ValueError, match="1 digits make 100 problems, too few for 90 rows"):
        arithmetic(1, 50, 20)
