"""Requests for generated tokens and for new weights, for each kind of server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from instil.remote.connection import Connection, RequestRefusedError
from instil.remote.log_probs import FORMAT_ERRORS

Generated = tuple[list[int], list[float] | None]
"""Generated tokens with the end token, and their log-probabilities; None: not complete."""


class TextRequest(NamedTuple):
    """Prompt of one text and options of its sampling.

    Attributes:
        prompt: token ids.
        max_tokens: largest number of tokens.
        seed: seed of the text.
        temperature: sampling temperature.
        top_p: see ``instil.generation.sampling.sample_tokens``.
        ends: tokens that end a text.
    """

    prompt: Sequence[int]
    max_tokens: int
    seed: int
    temperature: float
    top_p: float
    ends: Sequence[int]


class TextServer(NamedTuple):
    """Kind of server that generates tokens.

    ``address(root)`` is the endpoint, ``body(request, model)`` the request and ``read(response)``
    the text. ``push(connection, folder, version)`` loads the weights of a folder; None: the server
    has to be started again.
    """

    name: str
    address: Callable[[str], str]
    body: Callable[[TextRequest, str], dict[str, Any]]
    read: Callable[[Any], Generated]
    push: Callable[[Connection, str, int], None] | None


def _vllm_body(request: TextRequest, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": list(request.prompt),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": request.seed,
        "stop_token_ids": list(request.ends),
        # The log-probability of the sampled token only.
        "logprobs": 0,
        "return_token_ids": True,
    }


def _read_vllm(response: Any) -> Generated:
    choice = response["choices"][0]
    return list(choice["token_ids"]), list(choice["logprobs"]["token_logprobs"])


def _push_vllm(connection: Connection, folder: str, version: int) -> None:
    body = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
    connection.post(f"{connection.root}/collective_rpc", body, has_content=False)
    # Cached prefixes were computed with the weights before.
    connection.post(f"{connection.root}/reset_prefix_cache", {}, has_content=False)


def _sglang_body(request: TextRequest, model: str) -> dict[str, Any]:
    return {
        "input_ids": list(request.prompt),
        "sampling_params": {
            "max_new_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "sampling_seed": request.seed,
            "stop_token_ids": list(request.ends),
        },
        "return_logprob": True,
    }


def _read_sglang(response: Any) -> Generated:
    entries = response["meta_info"]["output_token_logprobs"]
    return [int(entry[1]) for entry in entries], [float(entry[0]) for entry in entries]


def _push_sglang(connection: Connection, folder: str, version: int) -> None:
    body = {"model_path": folder, "flush_cache": True, "weight_version": str(version)}
    response = connection.post(f"{connection.root}/update_weights_from_disk", body)
    if not isinstance(response, dict) or response.get("success") is not True:
        raise RequestRefusedError(f"the server has not loaded {folder}: {response}", 200)


def _llama_body(request: TextRequest, model: str) -> dict[str, Any]:
    return {
        "prompt": list(request.prompt),
        "n_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "samplers": ["temperature", "top_p"],
        "seed": request.seed,
        "return_tokens": True,
        "cache_prompt": False,
    }


def _read_llama(response: Any) -> Generated:
    # The server drops the log-probabilities of tokens that are a part of a character.
    return list(response["tokens"]), None


SERVERS = {
    "vllm": TextServer(
        "vLLM", lambda root: f"{root}/v1/completions", _vllm_body, _read_vllm, _push_vllm
    ),
    "sglang": TextServer(
        "SGLang", lambda root: f"{root}/generate", _sglang_body, _read_sglang, _push_sglang
    ),
    "llama_cpp": TextServer(
        "llama.cpp", lambda root: f"{root}/completion", _llama_body, _read_llama, None
    ),
}
"""Kinds of servers by their name in a recipe."""


def read_text(server: TextServer, response: Any, vocabulary: int | None) -> Generated:
    """Read a generated text.

    Args:
        server: kind of the server.
        response: its response.
        vocabulary: number of tokens of the student; None: not checked.

    Raises:
        ValueError: for a response without token ids, and for tokens that the student does not have.
    """
    try:
        tokens, log_probs = server.read(response)
        tokens = [int(token) for token in tokens]
        log_probs = None if log_probs is None else [float(value) for value in log_probs]
    except FORMAT_ERRORS as error:
        raise ValueError(
            f"the response has no tokens in the format of {server.name}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if log_probs is not None and len(log_probs) != len(tokens):
        raise ValueError(
            f"{server.name}: wrong number of log-probabilities. Expected {len(tokens)}, got "
            f"{len(log_probs)}"
        )
    largest = max(tokens, default=0)
    if min(tokens, default=0) < 0 or (vocabulary is not None and largest >= vocabulary):
        raise ValueError(
            f"{server.name}: generated a token that the student does not have. Expected at most "
            f"{(vocabulary or 0) - 1}, got {largest}. Start the server with the student"
        )
    return tokens, log_probs
