"""Text to the next token: causal language models."""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Lazily,
    Objective,
    Objectives,
    Outputs,
    Projection,
    full,
)
from instil.tasks.classification import asks
from instil.tasks.continuations import texts_after_prompts
from instil.tasks.task import Evaluation, Task

CHUNK = 2**24
"""Logits that are made at once where only a number a token is wanted of them."""


def call(model: nn.Module, batch: Batch) -> Outputs:
    """What a causal language model says of ``input_ids`` and ``attention_mask`` (N, T); position t speaks of the token at t + 1.

    ``projection`` (see ``Projection``) is what logits are made of: the last hidden state (N, T, H) and the head. ``logits`` (N, T, V) and
    ``prediction`` (N, T), the likeliest token, are made from it when they are read. ``hidden_states`` (the embeddings, then each layer; the last
    after the final norm) and ``attentions`` come where the model gives them; ``embedding`` is the last state, ``token_embedding`` (V, E) that of each
    token, ``head`` weight and bias where logits are no more than that. A model without ``get_output_embeddings`` is asked for its logits.

    A batch with ``past`` (None at first) holds only the next tokens of texts, at ``position_ids`` (N, T), and the ``attention_mask`` of all: what the
    model must remember of them comes back as ``past``, if it can; the other hidden states and attentions do not.

    Raises ValueError for rows longer than the model's context.
    """
    bare: Any = model
    if hasattr(bare, "get_base_model"):  # inside the wrapper of peft
        bare = bare.get_base_model()
    most = getattr(getattr(bare, "config", None), "max_position_embeddings", None)
    if most is not None and batch["input_ids"].shape[1] > most:
        raise ValueError(
            f"rows of {batch['input_ids'].shape[1]} tokens are longer than the context of {type(model).__name__}, {most} tokens"
        )
    wanted = {"attention_mask": batch["attention_mask"]} if "attention_mask" in batch else {}
    if not hasattr(bare, "get_output_embeddings"):
        answer = model(input_ids=batch["input_ids"], **wanted)
        if (
            isinstance(answer, Mapping) and "logits" not in answer
        ):  # it says less, such as the likeliest tokens
            return answer  # type: ignore[return-value]
        logits = answer["logits"] if isinstance(answer, Mapping) else answer
        return Lazily({"logits": logits}, {"prediction": lambda: logits.argmax(-1)})
    wanted |= _next(bare.base_model, batch) if "past" in batch else asks(bare)
    answer = bare.base_model(input_ids=batch["input_ids"], **wanted)
    projection = _projection(bare, answer["last_hidden_state"])
    there = {
        role: answer[role]
        for role in ("hidden_states", "attentions")
        if answer.get(role) is not None and "past" not in batch
    }
    there |= (
        {"past": past}
        if "past" in batch and (past := answer.get(_cache(bare.base_model))) is not None
        else {}
    )
    grad = torch.is_grad_enabled()
    later = {
        "logits": lambda: projected(projection, grad),
        "prediction": lambda: predicted(projection),
        **_inside(bare, projection),
    }
    return Lazily({"projection": projection, **there}, later)


def _inside(model: Any, projection: Projection) -> dict[str, Callable[[], Any]]:
    """What losses read that go between the spaces of two models; a head that is more than a matrix and a bias is none to them."""
    weight, bias = projection.weight, projection.bias
    plain = projection.scale is None and projection.softcap is None and projection.low_rank is None
    head = (
        {"head": lambda: (weight, weight.new_zeros(len(weight)) if bias is None else bias)}
        if plain
        else {}
    )
    tokens = model.get_input_embeddings().weight
    return {
        "embedding": lambda: projection.hidden,
        "token_embedding": lambda: tokens.view_as(tokens),
        **head,
    }


def _next(body: nn.Module, batch: Batch) -> dict[str, Any]:
    """What a model that can go on in texts is told of those that it has read."""
    takes = _takes(body)
    place = {"position_ids": batch["position_ids"]} if "position_ids" in takes else {}
    return place | {_cache(body): batch["past"], "use_cache": True} if "use_cache" in takes else {}


def _cache(body: nn.Module) -> str:
    """What this version of transformers calls it."""
    return "cache" if "cache" in _takes(body) else "past_key_values"


def _takes(body: nn.Module) -> frozenset[str]:
    """What a model can be told; asked for each token, and found once."""
    return _parameters(
        getattr(body.forward, "__func__", body.forward)
    )  # the function: what is remembered holds no model


@functools.lru_cache(8)
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _projection(model: Any, hidden: Tensor) -> Projection:
    """How this model makes logits of its last hidden state."""
    head, config = model.get_output_embeddings(), getattr(model, "config", None)
    bias, low_rank = getattr(head, "bias", None), None
    if isinstance(getattr(head, "down", None), nn.Linear):  # a head of low rank
        hidden = head.down(hidden)
    if hasattr(head, "lora_A") and not head.disable_adapters:
        name = head.active_adapters[0]
        low_rank = (
            head.lora_A[name].weight.view_as(head.lora_A[name].weight),
            head.lora_B[name].weight * head.scaling[name],
        )
    scale = getattr(config, "logit_scale", None) or 1 / (
        getattr(config, "logits_scaling", None) or 1
    )
    cap = getattr(config, "final_logit_softcapping", None)
    weight = head.weight.view_as(head.weight)  # a view: outputs carry no parameter
    return Projection(
        hidden,
        weight,
        None if bias is None else bias.view_as(bias),
        None if scale == 1 else float(scale),
        cap,
        low_rank,
    )


def projected(projection: Projection, grad: bool = True) -> Tensor:
    """The logits (..., V), differentiable where this is wanted by ``grad`` and allowed now."""
    with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
        return projection.logits()


def predicted(projection: Projection) -> Tensor:
    """The likeliest token (...), some positions at a time; no gradient."""
    with torch.no_grad():
        return torch.cat([part.argmax(-1) for part in _parts(projection)]).view(
            projection.hidden.shape[:-1]
        )


def _parts(projection: Projection) -> Iterator[Tensor]:
    """The logits of some positions at a time."""
    flat = projection.hidden.reshape(-1, projection.hidden.shape[-1])
    step = max(1, CHUNK // len(projection.weight))
    for start in range(0, len(flat), step):
        hidden = flat[start : start + step]
        yield replace(projection, hidden=hidden).logits()


def judged(outputs: Outputs, label: Tensor) -> tuple[Tensor, Tensor]:
    """Of each position (N, T) minus the log-probability of its label, 0 where it has none, and the likeliest token.

    From ``projection``, some positions at a time, or from ``logits``. Raises ValueError where a logit is not finite.
    """
    whole = "projection" not in outputs
    rest, lost, said = label.reshape(-1), [], []
    for part in [outputs["logits"].flatten(0, -2)] if whole else _parts(outputs["projection"]):
        logits, (target, rest) = full(part), rest.tensor_split([len(part)])
        if not logits[target != UNLABELLED].isfinite().all():
            raise ValueError("the net gives logits that are not finite")
        lost.append(F.cross_entropy(logits, target, reduction="none", ignore_index=UNLABELLED))
        said.append(logits.argmax(-1))
    return torch.cat(lost).view(label.shape), torch.cat(said).view(label.shape)


class Language(Task):
    """What the loop and the command line ask of the task.

    ``label`` (N, T) is the token that follows each position, -100 where none is learned; ``valid`` (N, T) is False for padding and prompts.
    """

    card = Card("Causal language modelling", tasks=("language",))
    title = "language modelling"
    names = ("input_ids", "attention_mask", "label")
    inputs = ("input_ids", "attention_mask")
    headline = "perplexity"
    higher_is_better = False
    secondary = ("bits_per_byte",)
    kinds = ("token",)
    baselines: ClassVar = {"token": ("alone",)}
    compared = ("prediction",)
    evaluated = 16
    exports = False
    call = staticmethod(call)

    def __init__(self, kind: str = "token"):
        super().__init__(kind)

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """ValueError for an objective that is not defined for one class an item, which a token is."""
        for name, objective in objectives.items():
            assert isinstance(objective, Objective)
            if not {"single", self.kind} & set(objective.card.labels):
                raise ValueError(
                    f"objectives.{name}: {type(objective).__name__} is undefined for {self.title}, where every token has one label"
                )

    def check_data(self, batch: Batch) -> None:
        """ValueError where labels are not one token a position, or are the tokens themselves instead of those that follow."""
        super().check_data(batch)
        ids, label = batch["input_ids"], batch["label"]
        if label.shape != ids.shape or label.is_floating_point():
            raise ValueError(
                f"{self.title} needs a token for each position of {tuple(ids.shape)}; labels are {label.dtype} {tuple(label.shape)}"
            )
        known = (label != UNLABELLED) & (batch["attention_mask"] > 0)
        if known[:, 1:].any() and torch.equal(label[known], ids[known]):
            raise ValueError(
                "the label of a position is the token that follows it; these labels are the tokens themselves"
            )

    def check_model(self, model: nn.Module, facts: Mapping[str, Any]) -> None:
        """ValueError where the model knows fewer tokens than the data have; more may be padding."""
        asked: Any = model
        known = (
            len(asked.get_input_embeddings().weight)
            if hasattr(asked, "get_input_embeddings")
            else facts["vocabulary"]
        )
        if known < facts["vocabulary"]:
            ours = f"it knows {known} tokens, the tokenizer of the data has {facts['vocabulary']}"
            raise ValueError(
                f"{ours}; teacher, student and data need one tokenizer (data.tokenizer)"
            )

    def check_classes(
        self,
        outputs: Outputs,
        classes: Sequence[str],
        names: Sequence[str] | None = None,
        whose: str = "teacher",
    ) -> None:
        """The classes are the tokens, of which ``check_model`` counts."""

    def can_score(self, outputs: Outputs, classes: Sequence[str]) -> bool:
        return "logits" in outputs

    def written(self, net: nn.Module, samples: Any, teacher: nn.Module | None = None) -> Evaluation:
        """What ``net`` writes, its likeliest token each time, after prompts, or after the first half of a row of text.

        Metric ``rouge_l`` (Lin 2004) where prompts have answers. Details: ``continuations``, some of them with what was there, ``written_per_second``
        tokens and ``writing_bytes``, the most memory that this takes beyond the weights; with a teacher ``exposure_bias_gap``.
        """
        if not hasattr(samples, "text_of"):
            return {}, {}
        return texts_after_prompts(net, samples, teacher)

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Metrics over what is learned: ``loss`` (nats per token), ``perplexity`` = exp(loss), ``accuracy``.

        Where the batches have ``bytes``, ``bits_per_byte``, which compares models of other tokenizers; with a teacher ``agreement``, how often
        both find the same token likeliest. Details: ``tokens_per_second`` of this evaluation. Raises ValueError where no token has a label.
        """
        lost = right = tokens = said = same = positions = 0.0
        began = time.perf_counter()
        for batch, mine, theirs in self.answers(net, batches, teacher):
            label = batch["label"]
            label = label.masked_fill(~batch["valid"], UNLABELLED) if "valid" in batch else label
            known, counted = label != UNLABELLED, batch.get("valid", label != UNLABELLED)
            values, prediction = judged(mine, label)
            lost, tokens = lost + values.double().sum().item(), tokens + known.sum().item()
            right += (prediction == label).sum().item()
            said += (batch["bytes"] * known).sum().item() if "bytes" in batch else 0
            if teacher is not None:
                same, positions = (
                    same + ((prediction == theirs["prediction"]) & counted).sum().item(),
                    positions + counted.sum().item(),
                )
        if not tokens:
            raise ValueError("no token to evaluate on has a label")
        loss = lost / tokens
        metrics = {
            "perplexity": math.exp(min(loss, 700)),
            "accuracy": right / tokens,
            "loss": loss,
        }
        metrics |= {"bits_per_byte": lost / math.log(2) / said} if said else {}
        metrics |= {"agreement": same / max(positions, 1)} if teacher is not None else {}
        return metrics, {"tokens_per_second": tokens / (time.perf_counter() - began)}
