"""Responses of real servers, as their users have published them, are read as they are.

Sources: vLLM, values of issue 2043 of vllm-project/vllm in the format of its completions API since
0.6; SGLang, pull request 13 of sgl-project/sglang-jax (``/generate``, ``logprob_start_len`` 1).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from instil.remote.answers import used_tokens
from instil.remote.log_probs import ENDPOINTS, read_positions, to_top

VLLM = """{"id": "cmpl-1", "object": "text_completion", "model": "llama", "choices": [{"index": 0,
"text": "a", "logprobs": null, "finish_reason": "length", "stop_reason": null, "prompt_logprobs":
[null,
{"15043": {"logprob": -7.584228515625, "rank": 300, "decoded_token": "Hello"},
 "917": {"logprob": -2.512939214706421, "rank": 1, "decoded_token": "others"}},
{"29892": {"logprob": -1.4937736988067627, "rank": 1, "decoded_token": ","}},
{"590": {"logprob": -1.8308428525924683, "rank": 2, "decoded_token": "my"},
 "306": {"logprob": -1.3464678525924683, "rank": 1, "decoded_token": "I"}}]}],
"usage": {"prompt_tokens": 4, "total_tokens": 5, "completion_tokens": 1}}"""
SGLANG = """{"text": " Paris. It is located in", "meta_info": {
"id": "26223ea355df4c0ab45e5af04505ed67", "finish_reason": {"type": "length", "length": 6},
"prompt_tokens": 5, "completion_tokens": 6,
"input_token_logprobs": [[null, 6722, null], [-0.58203125, 315, null], [-3.53125, 9625, null],
[-2.84375, 374, null]],
"input_top_logprobs": [null,
[[-0.58203125, 315, null], [-2.140625, 3283, null], [-3.765625, 374, null]],
[[-1.0390625, 279, null], [-3.53125, 9625, null], [-3.96875, 5616, null]],
[[-2.09375, 13, null], [-2.34375, 58883, null], [-2.40625, 11, null]]]}}"""


def endpoint(name: str) -> Any:
    (match,) = (one for one in ENDPOINTS if one.name == name)
    return match


def test_vllm_lists_the_token_of_the_text_beyond_the_most_likely_ones() -> None:
    response = json.loads(VLLM)
    positions = read_positions(endpoint("vLLM"), response, 3, 1)
    assert [ids for ids, _ in positions] == [[917], [29892], [306]]
    assert positions[0][1] == [pytest.approx(-2.5129392)]
    assert used_tokens(response) == 5
    with pytest.raises(ValueError, match="too few log-probabilities at a position"):
        read_positions(endpoint("vLLM"), response, 3, 2)


def test_sglang_lists_triples_and_nothing_before_the_first_token() -> None:
    response = json.loads(SGLANG)
    positions = read_positions(endpoint("SGLang"), response, 3, 3)
    assert [ids[0] for ids, _ in positions] == [315, 279, 13]
    top = to_top(positions)
    assert top.indices.tolist()[1] == [279, 9625, 5616]
    assert top.values[0, 0].item() == pytest.approx(-0.58203125)
    assert (top.values.exp().sum(-1) + top.log_tail.exp()).tolist() == pytest.approx([1.0] * 3)
    assert used_tokens(response) == 11
