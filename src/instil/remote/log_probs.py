"""Requests for the most likely tokens after every position of a text, for each kind of server."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from instil.roles import Top

Position = tuple[list[int], list[float]]
"""Token ids and their log-probabilities."""
MIN_TAIL = 2.0**-24
"""Probability of the remaining tokens if the listed ones sum to 1, the precision of float32."""
MAX_TOKEN = 2**31
MAX_LOG_PROB = 0.01
"""Largest log-probability of a valid response; it allows for rounding."""
MAX_TOTAL = 1.001
"""Largest sum of probabilities of a valid response."""


class Question(NamedTuple):
    """Address and body of a request, and the maximum number of tokens that it uses."""

    address: str
    body: dict[str, Any]
    tokens: int


class Endpoint(NamedTuple):
    """Endpoint of one kind of server that returns log-probabilities of a text.

    ``questions(root, url, model, ids, size)`` returns the requests for one text;
    ``read(response)`` returns the positions of one response, in order.
    """

    name: str
    questions: Callable[[str, str, str, Sequence[int], int], list[Question]]
    read: Callable[[Any], list[Position]]


def _vllm_questions(
    _root: str, url: str, model: str, ids: Sequence[int], size: int
) -> list[Question]:
    # The server returns log-probabilities of each prompt token after those before it. One more
    # token makes the last position a position of the prompt.
    body = {
        "model": model,
        "prompt": [*ids, ids[-1]],
        "max_tokens": 1,
        "temperature": 1.0,
        "prompt_logprobs": size,
    }
    return [Question(f"{url}/completions", body, len(ids) + 2)]


def _read_vllm(response: Any) -> list[Position]:
    positions = []
    for entries in response["choices"][0]["prompt_logprobs"][1:]:
        log_probs = [float(entry["logprob"]) for entry in entries.values()]
        positions.append(([int(token) for token in entries], log_probs))
    return positions


def _sglang_questions(
    root: str, _url: str, _model: str, ids: Sequence[int], size: int
) -> list[Question]:
    body = {
        "input_ids": [*ids, ids[-1]],
        # The server divides the logits of the input by the temperature too.
        "sampling_params": {"max_new_tokens": 0, "temperature": 1.0},
        "return_logprob": True,
        "logprob_start_len": 0,
        "top_logprobs_num": size,
    }
    return [Question(f"{root}/generate", body, len(ids) + 1)]


def _read_sglang(response: Any) -> list[Position]:
    positions = []
    for entries in response["meta_info"]["input_top_logprobs"][1:]:
        log_probs = [float(entry[0]) for entry in entries]
        positions.append(([int(entry[1]) for entry in entries], log_probs))
    return positions


PRINTABLE_GRAMMAR = "root ::= [ -~]+"


def _llama_questions(
    root: str, _url: str, _model: str, ids: Sequence[int], size: int
) -> list[Question]:
    # llama.cpp returns no log-probabilities of a prompt: each prefix is a prompt of its own, whose
    # next token is requested. The server caches the prefixes that it has read.
    body = {
        "n_predict": 1,
        "n_probs": size,
        "temperature": 1.0,
        "post_sampling_probs": False,
        "cache_prompt": True,
        "seed": 0,
        # The server drops the probabilities of a sampled token that is part of a character, so the
        # grammar allows ASCII only. The probabilities are those before sampling.
        "grammar": PRINTABLE_GRAMMAR,
    }
    questions = []
    for end in range(1, len(ids) + 1):
        questions.append(
            Question(f"{root}/completion", {"prompt": list(ids[:end])} | body, end + 1)
        )
    return questions


def _read_llama(response: Any) -> list[Position]:
    entries = response["completion_probabilities"][0]["top_logprobs"]
    log_probs = [float(entry["logprob"]) for entry in entries]
    return [([int(entry["id"]) for entry in entries], log_probs)]


ENDPOINTS = (
    Endpoint("vLLM", _vllm_questions, _read_vllm),
    Endpoint("SGLang", _sglang_questions, _read_sglang),
    Endpoint("llama.cpp", _llama_questions, _read_llama),
)

FORMAT_ERRORS = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""Exceptions that a reader raises for a response in another format."""


def read_positions(endpoint: Endpoint, response: Any, count: int, size: int) -> list[Position]:
    """Read the most likely tokens of each position, most likely first.

    Args:
        endpoint: endpoint of the request.
        response: its response.
        count: expected number of positions.
        size: expected number of tokens at each position.

    Returns:
        ``size`` tokens and log-probabilities of each position.

    Raises:
        ValueError: for a response without them, and for invalid probabilities.
    """
    try:
        positions = endpoint.read(response)
    except FORMAT_ERRORS as error:
        raise ValueError(
            f"the response has no log-probabilities in the format of {endpoint.name}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if len(positions) != count:
        raise ValueError(
            f"{endpoint.name}: wrong number of positions. Expected {count}, got {len(positions)}"
        )
    return [_checked_position(endpoint.name, position, size) for position in positions]


def _checked_position(server: str, position: Position, size: int) -> Position:
    ids, log_probs = position
    order = sorted(range(len(ids)), key=lambda index: -log_probs[index])[:size]
    num_finite = sum(math.isfinite(log_probs[index]) for index in order)
    if num_finite < size:
        raise ValueError(
            f"{server}: too few log-probabilities at a position. Expected {size}, got {num_finite}"
        )
    if not all(0 <= ids[index] < MAX_TOKEN for index in order):
        raise ValueError(f"{server}: the token id {min(ids)} is not valid")
    total = sum(math.exp(log_probs[index]) for index in order)
    if log_probs[order[0]] > MAX_LOG_PROB or total > MAX_TOTAL:
        raise ValueError(
            f"{server}: the probabilities sum to more than 1. Expected a softmax over the whole "
            "vocabulary at temperature 1"
        )
    # Eight digits are more than float32 holds, and keep the log small.
    rounded = [float(f"{log_probs[index]:.8g}") for index in order]
    return [ids[index] for index in order], rounded


def to_top(positions: Sequence[Position]) -> Top:
    """Convert the positions of one text to a signal.

    Args:
        positions: K token ids and log-probabilities at each of T positions.

    Returns:
        Log-probabilities and indices (T, K), and the log-probability of all other tokens (T).
    """
    log_probs = torch.tensor([log_prob for _, log_prob in positions], dtype=torch.float64)
    # Rounded probabilities may sum to 1 or more, which would leave the tail at minus infinity.
    total = log_probs.logsumexp(-1).clamp_max(math.log1p(-MIN_TAIL))
    tail = torch.log(-torch.expm1(total))
    indices = torch.tensor([ids for ids, _ in positions], dtype=torch.int32)
    return Top(log_probs.float(), indices, tail.float())
