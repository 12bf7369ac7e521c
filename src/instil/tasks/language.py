"""Causal language modelling: text to the next token."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Objective, Objectives, Outputs
from instil.data.splits import Splits
from instil.engine.cpu_offload import device_of
from instil.tasks.bases.causal_batch import causal_batch
from instil.tasks.bases.causal_model import call, require_causal
from instil.tasks.bases.checks import check_compares_tokens, check_token_objectives
from instil.tasks.bases.continuations import texts_after_prompts
from instil.tasks.bases.preferred_texts import check_pairs, preferred_texts
from instil.tasks.bases.task import Evaluation, LabelKind, Task
from instil.tasks.bases.token_losses import LARGEST_EXPONENT, token_losses, vocabulary_size
from instil.tasks.bases.verified_answers import verified_answers

CAUSAL_TOKENS = 8
"""Length of the row on which a model is tested to be causal."""


class Language(Task):
    """Causal language modelling.

    ``label`` (N, T) is the token that follows each position, -100 where none is learned. ``valid``
    (N, T) is False for padding and prompts.

    Args:
        kind: kind of the labels: ``token``.
    """

    card = Card("Causal language modelling", tasks=("language",))
    title = "language modelling"
    names = ("input_ids", "attention_mask", "label")
    inputs = ("input_ids", "attention_mask")
    headline = "perplexity"
    higher_is_better = False
    secondary = ("bits_per_byte",)
    further_headlines: ClassVar = ("solved", "preferred")
    kinds = ("token",)
    has_token_outputs = True
    baselines: ClassVar = {"token": ("alone",)}
    teacher_eval_roles = ("prediction",)
    eval_batch_size = 16
    exports = False
    call = staticmethod(call)

    def __init__(self, kind: LabelKind = "token"):
        super().__init__(kind)

    def set_data(self, splits: Splits) -> None:
        """Check that the data have a verifier, or preference pairs, if the headline needs them.

        Raises:
            ValueError: if they have none.
        """
        if self.headline == "preferred":
            check_pairs(splits.test)
        has_verifier = getattr(splits.train, "verifier", None) is not None
        if self.headline == "solved" and not has_verifier:
            raise ValueError(
                f"headline: {self.headline} is the share of correct answers. Expected data with a "
                "verifier. Set data.verifier"
            )

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Raise ValueError for an objective that is undefined for texts with a label per token."""
        check_token_objectives(objectives, self.title, (self.kind,))
        check_compares_tokens(objectives)

    def adapt_batch(self, batch: Batch) -> Batch:
        """Return a batch of a user's loader in the form that this task reads.

        ``labels`` of Hugging Face are the tokens themselves. They become ``label``, the token that
        follows each position, and ``valid``, which excludes positions without one. ``position_ids``
        that start again separate the texts of a row.
        """
        return causal_batch(super().adapt_batch(batch))

    def check_data(self, batch: Batch) -> None:
        """Raise ValueError for labels of another shape, or that are the input tokens themselves."""
        super().check_data(batch)
        ids = batch["input_ids"]
        label = batch["label"]
        if label.shape != ids.shape or label.is_floating_point():
            raise ValueError(
                f"{self.title} needs a token for each position of {tuple(ids.shape)}; labels are "
                f"{label.dtype} {tuple(label.shape)}"
            )
        is_labelled = (label != UNLABELLED) & (batch["attention_mask"] > 0)
        if is_labelled[:, 1:].any() and torch.equal(label[is_labelled], ids[is_labelled]):
            raise ValueError(
                "the label of a position is the token that follows it; these labels are the "
                "tokens themselves"
            )

    def check_model(self, model: nn.Module, facts: Mapping[str, Any]) -> None:
        """Check that a model is a causal language model of the data's tokens.

        More tokens than those of the data may be padding of the model's vocabulary.

        Args:
            model: the model of a student or a teacher.
            facts: properties of the data; ``vocabulary`` is the number of tokens of its tokenizer.

        Raises:
            ValueError: if the model has fewer tokens, is an encoder-decoder or reads later tokens.
        """
        embedding = getattr(model, "get_input_embeddings", None)
        num_tokens = facts["vocabulary"] if embedding is None else len(embedding().weight)
        if num_tokens < facts["vocabulary"]:
            raise ValueError(
                f"its vocabulary has {num_tokens} tokens, the tokenizer of the data has "
                f"{facts['vocabulary']}; teacher, student and data need one tokenizer "
                "(data.tokenizer)"
            )
        if embedding is not None:
            device = device_of(model)
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
        """Do nothing: the classes are the tokens, and ``check_model`` counts them."""

    def output_warning(self, outputs: Outputs, batch: Batch) -> str:
        """Return a sentence on a network that predicts worse than a uniform distribution."""
        if "projection" not in outputs and "logits" not in outputs:
            return ""
        label = _counted_labels(batch)
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
        """Generate text after prompts, or after the first half of rows of text, and measure it.

        Metrics and details are those of ``texts_after_prompts`` and ``preferred_texts``; none for
        samples without text.
        """
        if not hasattr(samples, "text_of"):
            return {}, {}
        metrics, details = texts_after_prompts(net, samples, teacher)
        return metrics | preferred_texts(net, samples), details

    def evaluate_answers(self, net: nn.Module, samples: Any) -> dict[str, float]:
        """Compute the metrics of ``verified_answers`` and ``preferred_texts``, if there are any."""
        preferred = preferred_texts(net, samples)
        if getattr(samples, "verifier", None) is None:
            return preferred
        return verified_answers(net, samples) | preferred

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics and details of a language model in eval mode.

        Metrics, over the labelled tokens:

        - ``loss`` in nats per token, ``perplexity`` = exp(loss), and ``accuracy``;
        - ``bits_per_byte``, if the batches have ``bytes``; comparable across tokenizers;
        - ``agreement``: share of the valid positions where the teacher has the same most likely
          token.

        Details: ``tokens_per_second`` of this evaluation.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no token has a label, or a logit is not finite.
        """
        start = time.perf_counter()
        totals = dict.fromkeys(("loss", "correct", "tokens", "bytes", "equal", "positions"), 0.0)
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            label = _counted_labels(batch)
            is_labelled = label != UNLABELLED
            # Sums are float64: millions of tokens exceed the precision of float32.
            losses, prediction = token_losses(outputs, label)
            totals["loss"] += losses.double().sum().item()
            totals["tokens"] += is_labelled.sum().item()
            totals["correct"] += (prediction == label).sum().item()
            if "bytes" in batch:
                totals["bytes"] += (batch["bytes"] * is_labelled).sum().item()
            if teacher is not None:
                is_valid = batch.get("valid", is_labelled)
                is_equal = (prediction == teacher_outputs["prediction"]) & is_valid
                totals["equal"] += is_equal.sum().item()
                totals["positions"] += is_valid.sum().item()
        if not totals["tokens"]:
            raise ValueError("no token to evaluate on has a label")
        metrics = _metrics(totals)
        if teacher is not None:
            metrics["agreement"] = totals["equal"] / max(totals["positions"], 1)
        return metrics, {"tokens_per_second": totals["tokens"] / (time.perf_counter() - start)}


def _counted_labels(batch: Batch) -> Tensor:
    """Labels (N, T) of a batch, -100 where ``valid`` is False."""
    label: Tensor = batch["label"]
    return label.masked_fill(~batch["valid"], UNLABELLED) if "valid" in batch else label


def _metrics(totals: Mapping[str, float]) -> dict[str, float]:
    loss = totals["loss"] / totals["tokens"]
    metrics = {
        "perplexity": math.exp(min(loss, LARGEST_EXPONENT)),
        "accuracy": totals["correct"] / totals["tokens"],
        "loss": loss,
    }
    if totals["bytes"]:
        metrics["bits_per_byte"] = totals["loss"] / math.log(2) / totals["bytes"]
    return metrics
