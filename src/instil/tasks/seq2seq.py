"""Sequence to sequence: text, audio features or images to a sequence of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Net, Objective, Objectives, Outputs
from instil.data.sequence_pairs import counted_tokens
from instil.functional.sequence_errors import character_errors, exact_match, word_errors
from instil.generation.sequences import special_tokens
from instil.tasks.bases.checks import check_compares_tokens, check_token_objectives
from instil.tasks.bases.encoder_decoder import call
from instil.tasks.bases.encoder_decoder_export import encoder_decoder_graphs
from instil.tasks.bases.encoder_decoder_parts import ENCODER_INPUTS, MASK
from instil.tasks.bases.exported_part import ExportedPart
from instil.tasks.bases.sequence_metrics import model_tokens, sequence_metrics, symbols
from instil.tasks.bases.task import Evaluation, LabelKind, Task
from instil.tasks.bases.token_losses import token_losses


class Seq2Seq(Task):
    """Sequence to sequence, with encoder-decoders.

    The input of the encoder is text (``input_ids``), audio (``input_features``, ``input_values``)
    or an image (``pixel_values``), with ``encoder_attention_mask`` for padding. ``label`` (N, L)
    holds the target with its end token, padded with -100. ``valid`` (N, L) is True for its tokens.
    A sample without a label has -100 only, and its first token is valid: the decoder predicts it
    from the input alone. Schemes with sequences of the teacher fill in the others.

    Args:
        kind: kind of the labels: ``sequence``.
    """

    card = Card(
        "Sequence to sequence",
        "https://arxiv.org/abs/1409.3215",
        "NeurIPS",
        2014,
        tasks=("seq2seq",),
    )
    title = "sequence to sequence"
    names = ("input_ids", MASK, "label")
    inputs = ("input_ids", MASK)
    aliases: ClassVar = {"attention_mask": MASK, "labels": "label"}
    headline = "error_rate"
    higher_is_better = False
    secondary = ("exact_match", "accuracy")
    kinds = ("sequence",)
    has_token_outputs = True
    baselines: ClassVar = {"sequence": ("alone", "pseudo_labels")}
    teacher_eval_roles = ("prediction", "sequence")
    exports = False
    call = staticmethod(call)

    def __init__(self, kind: LabelKind = "sequence"):
        super().__init__(kind)

    def adapt_batch(self, batch: Batch) -> Batch:
        """Return a batch of a user's loader with the names of this task, and with ``valid``."""
        adapted = super().adapt_batch(batch)
        if "label" in adapted and "valid" not in adapted:
            adapted["valid"] = counted_tokens(adapted["label"])
        return adapted

    def check_inputs(self, batch: Batch) -> None:
        """Raise ValueError for a batch without an input of an encoder."""
        if not any(key in batch for key in ENCODER_INPUTS):
            raise ValueError(
                f"{self.title} needs an input of the encoder in a batch. Expected one of "
                f"{', '.join(ENCODER_INPUTS)}, got {', '.join(batch)}"
            )

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Raise ValueError for an objective that is undefined for one label per token."""
        check_token_objectives(objectives, self.title)
        check_compares_tokens(objectives, {"embedding"}, ("seq2seq",))

    def check_data(self, batch: Batch) -> None:
        """Raise ValueError for labels that are not token ids (N, L), and for another ``valid``."""
        super().check_data(batch)
        label = batch["label"]
        if label.ndim != 2 or label.is_floating_point():
            raise ValueError(
                f"{self.title} needs token ids (N, L) as labels. Expected whole numbers, got "
                f"{label.dtype} {tuple(label.shape)}"
            )
        if "valid" not in batch or batch["valid"].shape != label.shape:
            raise ValueError(
                f"{self.title} needs 'valid' (N, L) in a batch, True for tokens that count. "
                "Expected a data set of pairs, such as the source pairs"
            )

    def check_model(self, model: nn.Module, facts: Mapping[str, Any]) -> None:
        """Check that a model is an encoder-decoder for the tokens of the data.

        Args:
            model: the model of a student or a teacher.
            facts: properties of the data; ``vocabulary`` is the number of tokens.

        Raises:
            ValueError: for a decoder or encoder alone, fewer tokens, and another end token.
        """
        if not hasattr(model, "get_output_embeddings"):
            return
        is_pair = getattr(getattr(model, "config", None), "is_encoder_decoder", True) is not False
        if not is_pair or not hasattr(model, "get_encoder"):
            raise ValueError(
                f"{type(model).__name__} lacks an encoder or a decoder. Expected a model such as "
                "those of AutoModelForSeq2SeqLM and AutoModelForSpeechSeq2Seq, or "
                "encoder_decoder. Use task: language for decoders"
            )
        bare: Any = model
        head = bare.get_output_embeddings()
        num_tokens = len(head.weight)
        if num_tokens < facts["vocabulary"]:
            raise ValueError(
                f"its vocabulary has {num_tokens} tokens. Expected at least the "
                f"{facts['vocabulary']} of the data"
            )
        ends = special_tokens(model).ends
        if "end" in facts and facts["end"] not in ends:
            raise ValueError(
                f"its end token is {', '.join(map(str, ends))}. Expected {facts['end']}, the end "
                "token of the data. Set eos_token_id of its configuration"
            )

    def check_classes(
        self,
        outputs: Outputs,
        classes: Sequence[str],
        names: Sequence[str] | None = None,
        whose: str = "teacher",
    ) -> None:
        """Do nothing: the classes are the tokens, and ``check_model`` counts them."""

    def check_export(self) -> None:
        """Do nothing: ``export_parts`` checks the student."""

    def export_parts(self, net: Net, batch: Batch) -> Mapping[str, ExportedPart]:
        """Return encoder and decoder as two graphs; see ``encoder_decoder_graphs``."""
        return encoder_decoder_graphs(net, batch)

    def can_score(self, outputs: Outputs, classes: Sequence[str]) -> bool:
        return "logits" in outputs and "sequence" in outputs

    def pseudo_labels(self, outputs: Outputs, label: Tensor) -> Tensor:
        """Fill in the labels of unlabelled samples with the teacher's most likely sequences.

        Args:
            outputs: teacher outputs with ``sequence`` (N, L).
            label: labels (N, L); rows of unlabelled samples are -100.
        """
        sequence = outputs["sequence"].to(label.device)[:, : label.shape[1]]
        is_unlabelled = (label == UNLABELLED).all(1, keepdim=True)
        return torch.where(is_unlabelled, sequence.to(label.dtype), label)

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics of an encoder-decoder in eval mode.

        Metrics of the labelled samples:

        - ``error_rate``: edits per target symbol of the most likely sequences (greedy search): the
          phoneme, character or word error rate, whatever a token is; end tokens do not count;
        - ``exact_match``: share of the sequences without an error;
        - ``accuracy``, ``loss`` (nats per token) and ``perplexity`` of the tokens after the correct
          beginning of the target;
        - ``agreement``: share of these tokens where the teacher has the same most likely token;
        - ``sequence_agreement``: share of the sequences that equal the teacher's.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: teacher for comparisons, if there is one.

        Raises:
            ValueError: if no token has a label, or a logit is not finite.
        """
        totals = dict.fromkeys(("loss", "correct", "tokens", "equal"), 0.0)
        sequences: dict[str, list[list[int]]] = {"student": [], "teacher": [], "label": []}
        tokens = model_tokens(net)
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            label = batch["label"]
            is_labelled = label != UNLABELLED
            losses, prediction = token_losses(outputs, label)
            totals["loss"] += losses.double().sum().item()
            totals["tokens"] += is_labelled.sum().item()
            totals["correct"] += (prediction == label).sum().item()
            rows = is_labelled.any(1)
            if "sequence" in outputs:
                sequences["student"] += symbols(outputs["sequence"][rows], tokens)
                sequences["label"] += symbols(label[rows], tokens)
            if teacher is not None:
                is_equal = (prediction == teacher_outputs["prediction"]) & is_labelled
                totals["equal"] += is_equal.sum().item()
                sequences["teacher"] += symbols(teacher_outputs["sequence"][rows], tokens)
        if not totals["tokens"]:
            raise ValueError("no token to evaluate on has a label")
        metrics = sequence_metrics(totals, sequences)
        if teacher is not None:
            metrics["agreement"] = totals["equal"] / totals["tokens"]
            metrics["sequence_agreement"] = exact_match(sequences["student"], sequences["teacher"])
        return metrics, {}

    def evaluate_generation(
        self, net: nn.Module, samples: Any, teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute ``word_error_rate`` and ``character_error_rate`` of the texts of the sequences.

        Samples without text, such as phonemes, have neither. Samples without a label are left out.
        """
        if not getattr(samples, "is_text", False):
            return {}, {}
        tokens = model_tokens(net)
        predictions: list[str] = []
        targets: list[str] = []
        rows = range(0, len(samples), self.eval_batch_size)
        batches = (samples.__getitems__(range(len(samples))[i : i + rows.step]) for i in rows)
        for batch, outputs, _ in self.iter_outputs(net, batches, None):
            is_labelled = (batch["label"] != UNLABELLED).any(1)
            predictions += map(samples.text_of, symbols(outputs["sequence"][is_labelled], tokens))
            targets += map(samples.text_of, symbols(batch["label"][is_labelled], tokens))
        metrics = {
            "word_error_rate": word_errors(predictions, targets),
            "character_error_rate": character_errors(predictions, targets),
        }
        return metrics, {}
