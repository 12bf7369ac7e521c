"""Letters in order."""

from __future__ import annotations

import pytest
import torch

from instil.data.sorting import sorting


def test_answers_are_the_letters_of_the_prompt_in_order_and_no_prompt_is_there_twice() -> None:
    splits = sorting(letters=5, alphabet=4, rows=40, held_out=20)
    seen = []
    for part in (splits.train, splits.validation, splits.test):
        batch = part.__getitems__(range(len(part)))
        for ids, valid, label in zip(batch["input_ids"], batch["valid"], batch["label"], strict=True):
            asked = part.text_of(ids[: int(valid.int().argmax()) + 1].tolist())
            answer = label[valid].tolist()
            assert asked[-1] == ">"
            assert part.text_of(answer) == "".join(sorted(asked[:-1]))
            assert answer[-1] == part.facts["end"]
            seen.append(asked)
    assert len(seen) == len(set(seen)) == 80
    assert splits.train.facts["vocabulary"] == 6
    assert torch.equal(sorting(5, 4, 40, 20).test.label, splits.test.label)


def test_too_few_prompts() -> None:
    with pytest.raises(ValueError, match="2 letters of 3 make 9 prompts, too few for 30 rows"):
        sorting(2, 3, 20, 5)
