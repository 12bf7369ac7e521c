"""Tokens that schemes may generate: those that all networks have."""

from __future__ import annotations

from collections.abc import Sequence

from instil.core import Outputs
from instil.generation.options import Sampling
from instil.generation.rollout import stop_tokens


def common_vocabulary(outputs_of_sides: Sequence[Outputs], sampling: Sampling) -> int | None:
    """Return the number of tokens that may be generated.

    Args:
        outputs_of_sides: outputs of each network for some rows.
        sampling: options of the generated text.

    Returns:
        ``sampling.vocabulary``, or the size of the smallest head; None if no outputs are over
        tokens.

    Raises:
        ValueError: if a network has fewer tokens than ``sampling`` generates or stops at.
    """
    sizes = [num_output_tokens(outputs) for outputs in outputs_of_sides]
    limits = [size for size in sizes if size is not None]
    if not limits:
        return sampling.vocabulary
    # Heads may be padded to different widths: a token beyond the smaller head has logits on one
    # side only.
    limit = min(limits)
    if sampling.vocabulary is not None and sampling.vocabulary > limit:
        raise ValueError(
            "scheme.sampling.vocabulary: a network has fewer tokens. Expected at most "
            f"{limit}, got {sampling.vocabulary}"
        )
    vocabulary = sampling.vocabulary or limit
    wrong = [token for token in stop_tokens(sampling.eos_token_id) if token >= vocabulary]
    if wrong:
        raise ValueError(
            "scheme.sampling.eos_token_id: there is no such token. Expected a token from 0 to "
            f"{vocabulary - 1}, got {wrong[0]}. Leave eos_token_id out to use the end "
            "token of the data's tokenizer"
        )
    return vocabulary


def num_output_tokens(outputs: Outputs) -> int | None:
    """Number of tokens in the outputs of a network; None if the outputs are not over tokens."""
    if "projection" in outputs:
        return len(outputs["projection"].weight)
    return int(outputs["logits"].shape[-1]) if "logits" in outputs else None
