"""A student as the draft of its teacher: instil counts what llama.cpp accepts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from instil.core import Batch
from instil.export.gguf import to_gguf
from instil.generation.speculative_decoding import draft_acceptance
from tests import llama_cpp
from tests.export.test_gguf import batch_of, goes_on, student, words

pytest.importorskip("gguf")
pytest.importorskip("tokenizers")
NUM_TOKENS = 20
PROMPT = 4


def row_of(prompt: list[int]) -> Batch:
    """Return a row with room for the generated tokens."""
    ids = torch.nn.functional.pad(torch.tensor([prompt]), (0, NUM_TOKENS))
    valid = torch.zeros_like(ids, dtype=torch.bool)
    valid[:, len(prompt) - 1 : -1] = True
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "valid": valid}
    return batch | {"index": torch.zeros(1, dtype=torch.long)}


@llama_cpp.needed
@pytest.mark.parametrize("num_draft_tokens", [2, 5])
def test_llama_cpp_uses_the_same_proposals(num_draft_tokens: int, tmp_path: Path) -> None:
    tokenizer = words()
    torch.manual_seed(0)
    teacher = student(tokenizer.size)
    draft = copy.deepcopy(teacher)
    for parameter in draft.parameters():
        parameter.data += 0.03 * parameter.std() * torch.randn_like(parameter)
    for name, net in (("teacher", teacher), ("draft", draft)):
        to_gguf(net, batch_of([1, 2]), tmp_path / f"{name}.gguf", tokenizer, "f32")
    prompts = torch.randint(5, tokenizer.size, (6, PROMPT)).tolist()
    files = (tmp_path / "teacher.gguf", tmp_path / "draft.gguf")
    options = {"temperature": 0, "ignore_eos": True, "return_tokens": True, "cache_prompt": False}
    with llama_cpp.serving(
        files[0], exact=True, draft=files[1], num_draft_tokens=num_draft_tokens
    ) as url:
        answers = [
            llama_cpp.request(url, "/completion", prompt=prompt, n_predict=NUM_TOKENS, **options)
            for prompt in prompts
        ]
    num_compared = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        # Two tokens of nearly equal probability may be exchanged.
        if goes_on(teacher, prompt, NUM_TOKENS)[PROMPT:] != answer["tokens"]:
            continue
        num_compared += 1
        # llama.cpp computes the first token with the prompt, without a draft.
        acceptance = draft_acceptance(
            draft,
            teacher,
            row_of([*prompt, answer["tokens"][0]]),
            max_new_tokens=NUM_TOKENS - 1,
            num_draft_tokens=num_draft_tokens,
            greedy=True,
        )
        counts = answer["timings"]
        assert 0 < counts["draft_n_accepted"] < counts["draft_n"]
        assert acceptance.used == counts["draft_n_accepted"] / counts["draft_n"]
        calls = NUM_TOKENS - 1 - counts["draft_n_accepted"]
        assert acceptance.sampled_tokens == (NUM_TOKENS - 1) / calls
    assert num_compared >= 3
