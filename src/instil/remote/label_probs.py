"""Probabilities of label words as the first token of an answer, from an OpenAI-compatible API."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter

from instil.remote.log_probs import FORMAT_ERRORS, MAX_LOG_PROB

Tokens = list[tuple[str, Annotated[FiniteFloat, Field(le=MAX_LOG_PROB)]]]
"""Most likely first tokens of an answer and their log-probabilities."""
TOKENS: TypeAdapter[Tokens] = TypeAdapter(Tokens)
MAX_TOKENS = 20
"""Number of tokens that APIs return at most."""
FLOOR = 1e-6
"""Probability of a label that is not among the most likely tokens."""
MIN_TOTAL = 1e-2
"""Smallest probability of all labels together, and smallest one of a token that counts."""


def request_options(model: str) -> dict[str, Any]:
    """Return the entries of a request for the most likely first tokens.

    Args:
        model: name of the model.
    """
    return {
        "model": model,
        "max_tokens": 1,
        "temperature": 1.0,
        "seed": 0,
        "logprobs": True,
        "top_logprobs": MAX_TOKENS,
    }


def read_first_tokens(response: Any) -> Tokens:
    """Read the most likely first tokens of a chat completion.

    Args:
        response: response of ``/chat/completions`` with log-probabilities.

    Raises:
        ValueError: for a response without log-probabilities.
    """
    try:
        entries = response["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        tokens = [(str(entry["token"]), float(entry["logprob"])) for entry in entries]
        # Some servers list a token without probability with minus infinity.
        return TOKENS.validate_python([item for item in tokens if math.isfinite(item[1])])
    except FORMAT_ERRORS as error:
        raise ValueError(
            "the response has no log-probabilities of its first token. Expected a server with "
            "logprobs and top_logprobs for chat completions"
        ) from error


def label_probabilities(tokens: Tokens, labels: Sequence[str]) -> list[float]:
    """Return the probability of each label: that of all tokens that begin it.

    Upper and lower case and spaces around a token do not matter.

    Args:
        tokens: most likely first tokens.
        labels: label words.

    Returns:
        Probabilities with the sum 1, each at least about ``FLOOR``.

    Raises:
        ValueError: if a likely token begins two labels, or the answer is likely none of them.
    """
    words = [label.strip().casefold() for label in labels]
    totals = [0.0] * len(words)
    for token, log_prob in tokens:
        beginning = token.strip().casefold()
        matches = [i for i, word in enumerate(words) if beginning and word.startswith(beginning)]
        if len(matches) > 1 and math.exp(log_prob) >= MIN_TOTAL:
            raise ValueError(
                f"labels: the token '{token}' begins both '{labels[matches[0]]}' and "
                f"'{labels[matches[1]]}'. Expected labels with different beginnings, such as "
                "A, B, C with their meaning in the prompt"
            )
        if len(matches) == 1:
            totals[matches[0]] += math.exp(log_prob)
    if sum(totals) < MIN_TOTAL:
        received = ", ".join(f"'{token}'" for token, _ in tokens[:5])
        raise ValueError(
            f"labels: the model answers with other tokens: {received}. Expected one of "
            f"{', '.join(labels)}. Ask for one of these words in the prompt"
        )
    floored = [max(total, FLOOR) for total in totals]
    return [value / sum(floored) for value in floored]
