"""Heads of causal language models: which of them a ``Projection`` represents exactly, decided once by a test on the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from instil.core import side_effect_free
from instil.roles import Projection

Fields = tuple[tuple[str, Callable[[float], float]], ...]
"""Names of configuration fields, each with the number that it stands for."""
SCALES: Fields = (
    ("logit_scale", lambda value: value),
    ("logits_scaling", lambda value: 1 / value),
    ("logits_scaling", lambda value: value),
    ("lm_head_multiplier", lambda value: value),
    ("logits_mup_width_multiplier", lambda value: 1 / value),
)
"""Configuration fields that multiply logits or the head's input, and the factor that each may stand for."""
SOFTCAPS: Fields = (
    ("final_logit_softcapping", lambda value: value),
    ("logits_soft_cap", lambda value: value),
    ("output_logit_soft_cap", lambda value: value),
)
"""Configuration fields that limit logits by c tanh(x / c)."""
PROBE_LIMIT = 60.0
"""Largest synthetic logit of the test: far enough from 0 to show a soft cap."""
VERDICTS = "_instil_heads"
"""Attribute of a model that keeps the result of the test for each state of its head."""


class LinearHead(NamedTuple):
    """A head that is a matrix product: ``down`` is the first factor of a head of low rank, ``lora`` an adapter (A, B)."""

    weight: Tensor
    bias: Tensor | None = None
    down: nn.Linear | None = None
    lora: tuple[Tensor, Tensor] | None = None

    def project(
        self, hidden: Tensor, scale: float = 1.0, softcap: float | None = None
    ) -> Projection:
        """The logits of ``hidden`` (..., H) as a projection whose tensors are views of the parameters."""
        bias = self.bias
        return Projection(
            hidden if self.down is None else self.down(hidden),
            self.weight.view_as(self.weight),
            None if bias is None else bias.view_as(bias),
            None if scale == 1 else scale,
            softcap,
            self.lora,
        )


class HeadRule(NamedTuple):
    """What a model does with the output of its head: softcap(scale x)."""

    scale: float
    softcap: float | None


def linear_head(head: Any) -> LinearHead | None:
    """Describe an output head as a matrix product.

    Args:
        head: result of ``get_output_embeddings()``.

    Returns:
        The parts of the head. None where the product is not exact: other modules, DoRA, an adapter
        with a bias or with dropout, several active adapters.
    """
    if hasattr(head, "modules_to_save"):
        trained = [name for name in head.active_adapters if name in head.modules_to_save]
        is_replaced = bool(trained) and not head.disable_adapters
        return linear_head(
            head.modules_to_save[trained[0]] if is_replaced else head.original_module
        )
    if hasattr(head, "lora_A"):
        return _lora_head(head)
    if isinstance(getattr(head, "down", None), nn.Linear) and not list(head.children())[1:]:
        return LinearHead(head.weight, getattr(head, "bias", None), down=head.down)
    if isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward:
        return LinearHead(head.weight, head.bias)
    return None


def _lora_head(head: Any) -> LinearHead | None:
    base = linear_head(head.get_base_layer())
    names = [name for name in head.active_adapters if name in head.lora_A]
    if base is None or base.down is not None or head.disable_adapters or head.merged or not names:
        return base if base is None or base.down is None else None
    name = names[0]
    down, up, dropout = head.lora_A[name], head.lora_B[name], head.lora_dropout[name]
    is_variant = name in getattr(head, "lora_variant", {})
    drops = not isinstance(dropout, nn.Identity) and getattr(dropout, "p", 1.0) > 0
    if len(names) > 1 or is_variant or drops or up.bias is not None or down.bias is not None:
        return None
    return base._replace(lora=(down.weight.view_as(down.weight), up.weight * head.scaling[name]))


def body_of(model: Any) -> nn.Module | None:
    """The part of a transformers model below its head; None where the model does not have one."""
    body = model.base_model
    body = getattr(model, "model", None) if body is model else body
    return body if isinstance(body, nn.Module) else None


def head_rule(model: Any, inputs: dict[str, Tensor]) -> HeadRule | None:
    """Decide whether a ``Projection`` gives the logits of a model; test it once for each state of the head.

    Args:
        model: a transformers model with ``get_output_embeddings``.
        inputs: ``input_ids`` (N, T) and optionally ``attention_mask``, on the model's device; a part of the
            first row is used.

    Returns:
        What follows the matrix product. None where the model's own logits must be used; a warning names the
        class of the model.
    """
    head = model.get_output_embeddings()
    state = _state_of(head)
    if not hasattr(model, VERDICTS):
        setattr(model, VERDICTS, {})
    verdicts: dict[Any, HeadRule | None] = getattr(model, VERDICTS)
    if state not in verdicts:
        verdicts[state] = _tested_rule(model, head, inputs)
        if verdicts[state] is None:
            warnings.warn(
                f"{type(model).__name__}: its logits are not a matrix product of its last hidden state, so "
                "its own logits are used. Losses keep all logits in memory (tokens x vocabulary)",
                stacklevel=2,
            )
    return verdicts[state]


def _state_of(head: Any) -> tuple[Any, ...]:
    """What may change how a head computes, without its weights; the same for copies and sharded modules."""
    adapters = tuple(getattr(head, "active_adapters", ()))
    flags = (getattr(head, "disable_adapters", False), getattr(head, "merged", False))
    return (hasattr(head, "down"), hasattr(head, "lora_A"), adapters, *flags)


def _tested_rule(model: Any, head: Any, inputs: dict[str, Tensor]) -> HeadRule | None:
    """Compare each stage of the model's own way to logits with a projection.

    The head's output is replaced by synthetic logits. What the model makes of them shows scales and soft caps
    whatever the size of the weights: at their initial values logits are so small that a soft cap does nothing.
    """
    body, linear = body_of(model), linear_head(head)
    if body is None or linear is None:
        return None
    calls: list[tuple[Tensor, Tensor]] = []

    def replace_logits(_module: nn.Module, args: Any, output: Tensor) -> Tensor:
        calls.append((args[0], output))
        return synthetic_logits(output)

    probe = probe_inputs(inputs)
    with side_effect_free(model), ExitStack() as hooks:
        hooks.callback(head.register_forward_hook(replace_logits).remove)
        logits = model(**probe)["logits"]
        answer = body(**probe)
        if len(calls) != 1 or "last_hidden_state" not in answer:
            return None
        (head_input, head_output), state = calls[0], answer["last_hidden_state"]
        scales = _fields(model, SCALES)
        before = next((scale for scale in scales if close(head_input, state * scale)), None)
        if before is None or (before != 1 and linear.bias is not None):
            return None
        if not close(linear.project(head_input).logits(), head_output):
            return None
        synthetic = synthetic_logits(head_output)
        for cap, after in product([None, *_fields(model, SOFTCAPS)[1:]], scales):
            expected = synthetic * after
            if cap is not None:
                expected = cap * torch.tanh(expected / cap)
            if close(expected, logits):
                return HeadRule(before * after, cap)
    return None


def _fields(model: Any, fields: Fields) -> list[float]:
    """1 for a model that has none of the fields, then what the configuration says."""
    config = getattr(model, "config", None)
    values = [1.0]
    for field, value_of in fields:
        value = getattr(config, field, None)
        if isinstance(value, (int, float)) and value:
            values.append(float(value_of(value)))
    return values


def synthetic_logits(like: Tensor) -> Tensor:
    """Logits from ``-PROBE_LIMIT`` to ``PROBE_LIMIT`` over the vocabulary, of the shape and type of ``like``."""
    line = torch.linspace(-PROBE_LIMIT, PROBE_LIMIT, like.shape[-1], device=like.device)
    return line.to(like.dtype).expand_as(like).clone()


PROBE_TOKENS = 64
"""Tokens of the one row on which a model is tested: enough to see its rule, and little memory."""


def probe_inputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first tokens of the row with the most tokens, without its padding on the right."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    if mask is None:
        return {"input_ids": ids[:1, :PROBE_TOKENS]}
    row = int(mask.sum(1).argmax())
    end = min(PROBE_TOKENS, max(1, int(mask[row].sum())))
    return {"input_ids": ids[row : row + 1, :end], "attention_mask": mask[row : row + 1, :end]}


def close(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors differ by rounding only, judged by their root mean square and the less exact type."""
    if left.shape != right.shape:
        return False
    eps = max(torch.finfo(left.dtype).eps, torch.finfo(right.dtype).eps)
    left, right = left.double(), right.double()
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
        ValueError: if another last token changes the logits of earlier positions.
    """
    changed = input_ids.clone()
    changed[:, -1] = (input_ids[:, -1] == 0).to(input_ids.dtype)  # token 0, or 1 in place of 0
    before, after = logits(input_ids)[:, :-1], logits(changed)[:, :-1]
    if not close(after, before):
        raise ValueError(
            f"{name}: the logits of a position depend on later tokens, so the model sees the answers. Expected a "
            "causal (decoder) language model. For an encoder such as BERT set is_decoder=True in its configuration, "
            "or choose a decoder"
        )
