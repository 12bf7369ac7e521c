"""Source of letters and their sorted order."""

from __future__ import annotations

import pytest
import torch

from instil.data.sources.sorting import sorting


def test_answers_are_the_sorted_letters_of_distinct_prompts() -> None:
    splits = sorting(letters=5, alphabet=4, rows=40, held_out=20)
    seen = []
    for part in (splits.train, splits.validation, splits.test):
        batch = part.__getitems__(range(len(part)))
        for ids, valid, label in zip(
            batch["input_ids"], batch["valid"], batch["label"], strict=True
        ):
            prompt = part.text_of(ids[: int(valid.int().argmax()) + 1].tolist())
            answer = label[valid].tolist()
            assert prompt[-1] == ">"
            assert part.text_of(answer) == "".join(sorted(prompt[:-1]))
            assert answer[-1] == part.facts["end"]
            seen.append(prompt)
    assert len(seen) == len(set(seen)) == 80
    assert splits.train.facts["vocabulary"] == 6
    assert torch.equal(sorting(5, 4, 40, 20).test.label, splits.test.label)


def test_too_few_prompts() -> None:
    with pytest.raises(ValueError, match="2 letters of 3 make 9 prompts, too few for 30 rows"):
        sorting(2, 3, 20, 5)


def test_the_context_has_its_own_keys_or_precedes_the_prompt() -> None:
    separate, read = (
        sorting(5, 4, 40, 20, context=context).train for context in ("separate", "read")
    )
    assert separate.facts == read.facts
    one, other = separate.__getitems__([3]), read.__getitems__([3])
    assert torch.equal(torch.cat([one["context_ids"], one["input_ids"]], 1), other["input_ids"])
    assert (
        separate.text_of(one["context_ids"][0].tolist())
        == separate.text_of(one["label"][0][one["valid"][0]].tolist()) + "="
    )
    assert "context_ids" not in other


def test_either_order_is_a_domain() -> None:
    both, down = (
        sorting(5, 4, 40, 20, descending=True).train,
        sorting(5, 4, 40, 20, descending=True, domain="descending").train,
    )
    assert both.facts == down.facts
    is_second_domain = both.tensors["domain"] == 1
    assert int(is_second_domain.sum()) == len(down) == 20
    assert torch.equal(both.label[is_second_domain], down.label)
    text = down.text_of(down.tensors["input_ids"][0].tolist())
    assert text[6:11] == "".join(sorted(text[:5], reverse=True))
    with pytest.raises(ValueError, match="no text has the domain 'upwards'"):
        sorting(5, 4, 40, 20, descending=True, domain="upwards")
