"""How servers are asked for the likeliest tokens after every position of given text, and how they say it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from instil.roles import Top

Position = tuple[list[int], list[float]]
"""Token numbers and their log-probabilities."""
SURE = 2.0**-24
"""What is left where all that was said sums to one: float32 tells no less."""


class Question(NamedTuple):
    """Where and what is asked, and how many tokens it takes at most."""

    address: str
    body: dict[str, Any]
    tokens: int


class Way(NamedTuple):
    """One kind of server: ``ask`` (root, url, model, ids, size) gives questions whose answers, ``read`` in order, are the positions."""

    name: str
    ask: Callable[[str, str, str, Sequence[int], int], list[Question]]
    read: Callable[[Any], list[Position]]


def _ask_vllm(_root: str, url: str, model: str, ids: Sequence[int], size: int) -> list[Question]:
    """Log-probabilities of the prompt are of each token given those before; one more token makes the last position a prompt's."""
    body = {
        "model": model,
        "prompt": [*ids, ids[-1]],
        "max_tokens": 1,
        "temperature": 1.0,
        "prompt_logprobs": size,
    }
    return [Question(f"{url}/completions", body, len(ids) + 2)]


def _read_vllm(answer: Any) -> list[Position]:
    listed = answer["choices"][0]["prompt_logprobs"][1:]
    return [
        ([int(token) for token in one], [float(said["logprob"]) for said in one.values()])
        for one in listed
    ]


def _ask_sglang(root: str, _url: str, _model: str, ids: Sequence[int], size: int) -> list[Question]:
    body = {
        "input_ids": [*ids, ids[-1]],
        "sampling_params": {
            "max_new_tokens": 0,
            "temperature": 1.0,
        },  # it divides log-probabilities of the input by the temperature
        "return_logprob": True,
        "logprob_start_len": 0,
        "top_logprobs_num": size,
    }
    return [Question(f"{root}/generate", body, len(ids) + 1)]


def _read_sglang(answer: Any) -> list[Position]:
    return [
        ([int(one[1]) for one in listed], [float(one[0]) for one in listed])
        for listed in answer["meta_info"]["input_top_logprobs"][1:]
    ]


PLAIN = "root ::= [ -~]+"


def _ask_llama(root: str, _url: str, _model: str, ids: Sequence[int], size: int) -> list[Question]:
    """It says nothing of prompts, so each position is a prompt of its own whose next token is asked for; what it has read before it keeps.

    The token that it draws must be plain text: it loses the probabilities of one that is part of a character. They are those before the drawing.
    """
    body = {
        "n_predict": 1,
        "n_probs": size,
        "temperature": 1.0,
        "post_sampling_probs": False,
        "cache_prompt": True,
        "seed": 0,
        "grammar": PLAIN,
    }
    return [
        Question(f"{root}/completion", {"prompt": list(ids[:end])} | body, end + 1)
        for end in range(1, len(ids) + 1)
    ]


def _read_llama(answer: Any) -> list[Position]:
    listed = answer["completion_probabilities"][0]["top_logprobs"]
    return [([int(one["id"]) for one in listed], [float(one["logprob"]) for one in listed])]


WAYS = (
    Way("vLLM", _ask_vllm, _read_vllm),
    Way("SGLang", _ask_sglang, _read_sglang),
    Way("llama.cpp", _ask_llama, _read_llama),
)


BAD_ANSWERS = (
    *(KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError),
)
"""Exceptions of a reader for an answer of another form."""


def positions(way: Way, answer: Any, count: int, size: int) -> list[Position]:
    """The ``size`` likeliest tokens of each of ``count`` positions, likeliest first. Raises ValueError for an answer that does not say them."""
    try:
        found = way.read(answer)
    except BAD_ANSWERS as error:
        raise ValueError(
            f"the answer has no log-probabilities as {way.name} gives them: {type(error).__name__}: {error}"
        ) from error
    if len(found) != count:
        raise ValueError(f"{way.name} answered {len(found)} positions, {count} were asked for")
    made = []
    for tokens, values in found:
        order = sorted(range(len(tokens)), key=lambda one: -values[one])[:size]
        if len(order) < size or not all(math.isfinite(values[one]) for one in order):
            raise ValueError(
                f"{way.name} gave {len(order)} log-probabilities of a token, {size} were asked for"
            )
        if not all(0 <= tokens[one] < 2**31 for one in order):
            raise ValueError(f"{way.name} gave the token number {min(tokens)}, which no token has")
        if values[order[0]] > 0.01 or sum(math.exp(values[one]) for one in order) > 1.001:
            raise ValueError(
                f"{way.name} gave probabilities that sum to more than 1: they are not of a whole softmax at temperature 1"
            )
        made.append(
            ([tokens[one] for one in order], [float(f"{values[one]:.8g}") for one in order])
        )
    return made


def top_of(found: Sequence[Position]) -> Top:
    """Positions (T) as one signal: values and indices (T, K), log_tail (T). What is left is known to float32's last digit of one, not below."""
    values = torch.tensor([log_p for _, log_p in found], dtype=torch.float64)
    inside = values.logsumexp(-1).clamp_max(math.log1p(-SURE))
    tail = torch.log(-torch.expm1(inside))
    return Top(
        values.float(), torch.tensor([ids for ids, _ in found], dtype=torch.int32), tail.float()
    )
