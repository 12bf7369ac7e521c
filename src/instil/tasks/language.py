"""Text to the next token: causal language models."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.tasks.bases.causal_model import call, chunked_logits, require_causal
from instil.tasks.bases.continuations import texts_after_prompts
from instil.tasks.bases.task import Evaluation, Task

CAUSAL_TOKENS = 8
"""Tokens of the row on which a model is tested to be causal."""


def token_losses(outputs: Outputs, label: Tensor) -> tuple[Tensor, Tensor]:
    """Of each position (N, T) minus the log-probability of its label, 0 where it has none, and the likeliest token.

    From ``projection``, some positions at a time, or from ``logits``. Raises ValueError where a logit is not finite.
    """
    whole = "projection" not in outputs
    rest, lost, said = label.reshape(-1), [], []
    for part in (
        [outputs["logits"].flatten(0, -2)] if whole else chunked_logits(outputs["projection"])
    ):
        logits, (target, rest) = to_float32(part), rest.tensor_split([len(part)])
        if not logits[target != UNLABELLED].isfinite().all():
            raise ValueError("the net gives logits that are not finite")
        lost.append(F.cross_entropy(logits, target, reduction="none", ignore_index=UNLABELLED))
        said.append(logits.argmax(-1))
    return torch.cat(lost).view(label.shape), torch.cat(said).view(label.shape)


def vocabulary_size(outputs: Outputs) -> int:
    """Number of tokens that a language model chooses from."""
    if "projection" in outputs:
        return len(outputs["projection"].weight)
    return int(outputs["logits"].shape[-1])


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
    teacher_eval_roles = ("prediction",)
    eval_batch_size = 16
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
        """Check that a model is a causal language model of the data's tokens; more tokens may be padding.

        Args:
            model: the model of a student or a teacher.
            facts: of the data; ``vocabulary`` is the number of tokens of its tokenizer.

        Raises:
            ValueError: if the model has fewer tokens, is an encoder-decoder or reads later tokens.
        """
        embedding = getattr(model, "get_input_embeddings", None)
        num_tokens = facts["vocabulary"] if embedding is None else len(embedding().weight)
        if num_tokens < facts["vocabulary"]:
            raise ValueError(
                f"it knows {num_tokens} tokens, the tokenizer of the data has {facts['vocabulary']}; "
                "teacher, student and data need one tokenizer (data.tokenizer)"
            )
        if embedding is not None:
            device = next(model.parameters()).device
            context = getattr(getattr(model, "config", None), "max_position_embeddings", None)
            length = min(CAUSAL_TOKENS, num_tokens, context or CAUSAL_TOKENS)
            ids = torch.arange(length, device=device)[None]
            require_causal(model, {"input_ids": ids})

    def check_classes(
        self,
        outputs: Outputs,
        classes: Sequence[str],
        names: Sequence[str] | None = None,
        whose: str = "teacher",
    ) -> None:
        """The classes are the tokens, of which ``check_model`` counts."""

    def output_warning(self, outputs: Outputs, batch: Batch) -> str:
        """Sentence on a net that expects the text less than a uniform distribution would."""
        if "projection" not in outputs and "logits" not in outputs:
            return ""
        label = batch["label"]
        label = label.masked_fill(~batch["valid"], UNLABELLED) if "valid" in batch else label
        num_tokens = int((label != UNLABELLED).sum())
        loss = token_losses(outputs, label)[0].double().sum().item() / max(num_tokens, 1)
        size = vocabulary_size(outputs)
        if loss <= math.log(size):
            return ""
        return (
            f"on the first batch its loss is {loss:.3g} nats per token, worse than a uniform "
            f"distribution over its {size:,} tokens ({math.log(size):.3g}). Probably its tokenizer "
            "is another one than that of the data (data.tokenizer)"
        )

    def can_score(self, outputs: Outputs, classes: Sequence[str]) -> bool:
        return "logits" in outputs

    def evaluate_generation(
        self, net: nn.Module, samples: Any, teacher: nn.Module | None = None
    ) -> Evaluation:
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
        for batch, mine, theirs in self.iter_outputs(net, batches, teacher):
            label = batch["label"]
            label = label.masked_fill(~batch["valid"], UNLABELLED) if "valid" in batch else label
            known, counted = label != UNLABELLED, batch.get("valid", label != UNLABELLED)
            values, prediction = token_losses(mine, label)
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
