"""Test whether the logits of a causal language model are a ``Projection``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from instil.core import side_effect_free
from instil.items.tensor_values import has_values
from instil.tasks.bases.linear_head import LinearHead, linear_head

Fields = tuple[tuple[str, Callable[[float], float]], ...]
"""Names of configuration fields, each with the function that maps its value to a factor."""
SCALES: Fields = (
    ("logit_scale", lambda value: value),
    ("logits_scaling", lambda value: 1 / value),
    ("logits_scaling", lambda value: value),
    ("lm_head_multiplier", lambda value: value),
    ("logits_mup_width_multiplier", lambda value: 1 / value),
)
"""Configuration fields that multiply the logits or the input of the head."""
SOFTCAPS: Fields = (
    ("final_logit_softcapping", lambda value: value),
    ("logits_soft_cap", lambda value: value),
    ("output_logit_soft_cap", lambda value: value),
)
"""Configuration fields that limit logits by c tanh(x / c)."""
PROBE_LIMIT = 60.0
"""Largest synthetic logit of the test: far enough from 0 to show a soft cap."""
PROBE_TOKENS = 64
"""Length of the row on which a model is tested: long enough to show its rule, in little memory."""
VERDICTS = "_instil_heads"
"""Attribute of a model that keeps the result of the test for each state of its head."""


class HeadRule(NamedTuple):
    """Function softcap(scale x) that a model applies to the output x of its head."""

    scale: float
    softcap: float | None


def body_of(model: Any) -> nn.Module | None:
    """Return the part of a transformers model below its head; None if the model has no body."""
    body = model.base_model
    body = getattr(model, "model", None) if body is model else body
    return body if isinstance(body, nn.Module) else None


def head_rule(model: Any, inputs: dict[str, Tensor]) -> HeadRule | None:
    """Test whether a ``Projection`` gives the logits of a model, once for each state of the head.

    Args:
        model: a transformers model with ``get_output_embeddings``.
        inputs: ``input_ids`` (N, T) and optionally ``attention_mask``, on the model's device; a
            part of one row is used.

    Returns:
        The function after the matrix product. None if the model's own logits must be used; a
        warning names the class of the model.
    """
    head = model.get_output_embeddings()
    state = head_state(head)
    # The result is an attribute of the model, so that copies of the model need no test.
    if not hasattr(model, VERDICTS):
        setattr(model, VERDICTS, {})
    verdicts: dict[Any, HeadRule | None] = getattr(model, VERDICTS)
    if state not in verdicts:
        verdicts[state] = _tested_rule(model, head, inputs)
        if verdicts[state] is None:
            warnings.warn(
                f"{type(model).__name__}: its logits are not a matrix product of its last hidden "
                "state, so its own logits are used. Losses keep all logits in memory (tokens x "
                "vocabulary)",
                stacklevel=2,
            )
    return verdicts[state]


def head_state(head: Any) -> tuple[Any, ...]:
    """Return what decides how a head computes; equal for copies and for sharded modules."""
    adapters = tuple(getattr(head, "active_adapters", ()))
    flags = (getattr(head, "disable_adapters", False), getattr(head, "merged", False))
    return (hasattr(head, "down"), hasattr(head, "lora_A"), adapters, *flags)


def _tested_rule(model: Any, head: Any, inputs: dict[str, Tensor]) -> HeadRule | None:
    """Compare each stage between the hidden state and the logits with a projection."""
    body = body_of(model)
    linear = linear_head(head)
    if body is None or linear is None:
        return None
    if not has_values(linear.weight):
        # Without values there is nothing to compare: the configuration decides.
        scale = _fields(model, SCALES)[-1]
        return HeadRule(scale, [None, *_fields(model, SOFTCAPS)[1:]][-1])
    calls: list[tuple[Tensor, Tensor]] = []

    # Initial weights give logits so small that a soft cap changes nothing. Synthetic logits in
    # place of the head's output show scales and soft caps for any weights.
    def replace_logits(_module: nn.Module, args: Any, output: Tensor) -> Tensor:
        calls.append((args[0], output))
        return synthetic_logits(output)

    probe = probe_inputs(inputs)
    with side_effect_free(model), ExitStack() as hooks:
        hooks.callback(head.register_forward_hook(replace_logits).remove)
        logits = model(**probe)["logits"]
        outputs = body(**probe)
        if len(calls) != 1 or "last_hidden_state" not in outputs:
            return None
        state = outputs["last_hidden_state"]
        head_input, head_output = calls[0]
        before = _input_scale(model, linear, state, head_input)
        if before is None or not close(linear.project(head_input).logits(), head_output):
            return None
        return _output_rule(model, before, synthetic_logits(head_output), logits)


def _input_scale(model: Any, linear: LinearHead, state: Tensor, head_input: Tensor) -> float | None:
    """Factor between the last hidden state and the input of the head."""
    for scale in _fields(model, SCALES):
        if close(head_input, state * scale):
            # A factor before the head commutes with the product only where there is no bias.
            return scale if scale == 1 or linear.bias is None else None
    return None


def _output_rule(model: Any, before: float, head_output: Tensor, logits: Tensor) -> HeadRule | None:
    """Scale and soft cap that map the output of the head to the logits."""
    caps = [None, *_fields(model, SOFTCAPS)[1:]]
    for cap, after in product(caps, _fields(model, SCALES)):
        expected = head_output * after
        if cap is not None:
            expected = cap * torch.tanh(expected / cap)
        if close(expected, logits):
            return HeadRule(before * after, cap)
    return None


def _fields(model: Any, fields: Fields) -> list[float]:
    """1 for a model without such fields, then the factors of those in its configuration."""
    config = getattr(model, "config", None)
    values = [1.0]
    for field, value_of in fields:
        value = getattr(config, field, None)
        if isinstance(value, (int, float)) and value:
            values.append(float(value_of(value)))
    return values


def synthetic_logits(like: Tensor) -> Tensor:
    """Return logits from ``-PROBE_LIMIT`` to ``PROBE_LIMIT`` in the shape and type of ``like``."""
    line = torch.linspace(-PROBE_LIMIT, PROBE_LIMIT, like.shape[-1], device=like.device)
    return line.to(like.dtype).expand_as(like).clone()


def probe_inputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the first tokens of the row with the most tokens, without padding on the right."""
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    if mask is None:
        return {"input_ids": ids[:1, :PROBE_TOKENS]}
    row = int(mask.sum(1).argmax())
    end = min(PROBE_TOKENS, max(1, int(mask[row].sum())))
    return {"input_ids": ids[row : row + 1, :end], "attention_mask": mask[row : row + 1, :end]}


def close(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors differ by rounding only.

    The root mean square of the difference is compared with the precision of the coarser type.
    Tensors without values are close if their shapes are equal.
    """
    if left.shape != right.shape:
        return False
    if not (has_values(left) and has_values(right)):
        return True
    eps = max(torch.finfo(left.dtype).eps, torch.finfo(right.dtype).eps)
    left = left.double()
    right = right.double()
    is_finite = left.isfinite() & right.isfinite()
    if not torch.equal(left.isfinite(), right.isfinite()):
        return False
    error = torch.where(is_finite, left - right, 0.0).square().mean().sqrt()
    size = torch.where(is_finite, right, 0.0).square().mean().sqrt()
    return bool(error <= eps**0.5 / 4 * size)


def check_causal(logits: Callable[[Tensor], Tensor], input_ids: Tensor, name: str) -> None:
    """Check that logits do not depend on later tokens.

    Args:
        logits: maps ``input_ids`` (1, T) to logits (1, T, V).
        input_ids: one row of at least two tokens, without padding.
        name: class of the model, for the message.

    Raises:
        ValueError: if another last token changes the logits of earlier positions, and for a model
            that cannot compute the row.
    """
    changed = input_ids.clone()
    # Token 0 exists in every vocabulary; if it is the last token, 1 takes its place.
    changed[:, -1] = (input_ids[:, -1] == 0).to(input_ids.dtype)
    try:
        before = logits(input_ids)[:, :-1]
    except RuntimeError as error:
        # For example a number of heads that does not divide the channels.
        raise ValueError(
            f"{name} cannot compute a row of {input_ids.shape[1]} tokens; its configuration may be "
            f"wrong: {error}"
        ) from error
    after = logits(changed)[:, :-1]
    if not close(after, before):
        raise ValueError(
            f"{name}: the logits of a position depend on later tokens, so the model sees the "
            "answers. Expected a causal (decoder) language model. For an encoder such as BERT set "
            "is_decoder=True in its configuration, or choose a decoder"
        )
