"""Reduced vocabularies: new ids of special tokens."""

from __future__ import annotations

import pytest

from instil.students.vocabulary import keep_tokens
from tests.students.nets import llama


@pytest.mark.parametrize(
    ("ends", "expected"), [([5, 9, 2], [3, 2]), ([9], None), (5, 3), (9, None)]
)
def test_end_tokens_have_their_new_ids(ends: int | list[int], expected: object) -> None:
    # Llama 3 and Qwen have a list of end tokens.
    model = llama(eos_token_id=ends, bos_token_id=1)
    model.generation_config.eos_token_id = ends
    keep_tokens(model, [0, 1, 2, 5])
    assert (model.config.eos_token_id, model.generation_config.eos_token_id) == (expected,) * 2
    assert model.config.bos_token_id == 1
