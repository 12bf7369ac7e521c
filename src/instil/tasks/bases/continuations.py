"""What a language model writes after the prompts of some samples, how like the answers it is, how fast, and in how much memory."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs, as_net, batch_size, side_effect_free
from instil.functional.tokens.divergence import token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.signals import num_classes
from instil.functional.tokens.terms import forward_kl
from instil.generation.reader import index_batch
from instil.generation.rollout import EndTokens, generate_text, generate_with
from instil.generation.sampling import sample_tokens
from instil.tasks.bases.peak_memory import PeakMemory

JUDGED, SHOWN, LENGTH = 16, 4, 32
"""Rows that are gone on with where prompts have answers, rows that are shown, and tokens that are written where texts have no prompt."""


def texts_after_prompts(
    net: nn.Module, samples: Any, teacher: nn.Module | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """``rouge_l`` where prompts have answers; ``continuations``, ``written_per_second``, ``writing_bytes``, with a teacher ``exposure_bias_gap``.

    ``samples``: rows of tokens that know what their numbers say (``text_of``).
    """
    batch = samples.__getitems__(range(min(JUDGED, len(samples))))
    answers = bool(samples.has_prompts)
    batch = batch if answers else {key: value[:SHOWN] for key, value in batch.items()}
    half = 1 if answers else batch["input_ids"].shape[1] // 2
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    batch = {key: value.to(device) for key, value in batch.items()}
    with side_effect_free(net):
        said, seconds = _written(net, batch, samples, half, None if answers else LENGTH)
        with PeakMemory() as memory:
            _written(net, {key: value[:1] for key, value in batch.items()}, samples, half, LENGTH)
    rows = [
        _row(samples, batch, said["token"], number, None if answers else LENGTH)
        for number in range(batch_size(batch))
    ]
    speed = (said["token"] >= 0).sum().item() / seconds
    details = {
        "continuations": rows[:SHOWN],
        "written_per_second": speed,
        "writing_bytes": memory.peak,
    }
    if teacher is not None:
        details["exposure_bias_gap"] = exposure_bias_gap(
            net,
            teacher,
            batch,
            samples.ends,
            half,
            None if answers else LENGTH,
            samples.vocabulary,
        )
    return ({"rouge_l": _rouge(rows)} if answers else {}), details


@torch.no_grad()
def exposure_bias_gap(
    net: nn.Module,
    teacher: nn.Module,
    batch: Batch,
    end: EndTokens,
    prompt: int = 1,
    max_new_tokens: int | None = None,
    vocabulary: int | None = None,
) -> float:
    """How much further a net is from its teacher on text of its own than on the text of the data (Arora et al. 2022).

    The paper divides the difference by the second of the two divergences.

    Args:
        net: the student.
        teacher: what it is compared with; it gives logits or a projection.
        batch: rows of tokens with prompts.
        end: see ``generation.rollout.roll_out``.
        prompt: see ``generation.rollout.roll_out``.
        max_new_tokens: see ``generation.rollout.roll_out``.
        vocabulary: see ``generation.rollout.roll_out``.

    Returns:
        KL(teacher | net) on text that the net samples, minus that on the given text after the same prompts, in
        nats a token; zero where its own text leads the net nowhere worse.
    """
    with side_effect_free(net):
        own = generate_text(as_net(net), batch, end, prompt, max_new_tokens, vocabulary=vocabulary)
        column = torch.arange(batch["valid"].shape[1], device=batch["valid"].device)[None]
        begin = own["valid"].int().argmax(1, keepdim=True)
        length = max_new_tokens or column.numel()
        is_compared = batch["valid"] & (column >= begin) & (column < begin + length)
        own_divergence = _mean_divergence(net, teacher, own, own["valid"])
        return own_divergence - _mean_divergence(net, teacher, batch, is_compared)


def _mean_divergence(
    net: nn.Module, teacher: nn.Module, batch: Batch, is_compared: Tensor
) -> float:
    """KL(teacher | net) in nats a token, over the tokens that both nets have: other ones are padding.

    One row after the other, each through the chunked divergence: logits of many rows would not fit into memory.
    """
    total = 0.0
    for i in range(batch_size(batch)):
        row = index_batch(batch, torch.tensor([i], device=is_compared.device))
        student_signal, teacher_signal = _signal(net(row)), _signal(teacher(row))
        common = min(num_classes(student_signal), num_classes(teacher_signal))
        divergence = token_divergence(
            student_signal,
            teacher_signal,
            forward_kl,
            weight=is_compared[i : i + 1].float(),
            vocabulary=common,
        )
        total += divergence.double().sum().item()
    return total / max(int(is_compared.sum()), 1)


def _signal(outputs: Outputs) -> Signal:
    """What the chunked divergence reads of a net."""
    signal: Signal = outputs["projection"] if "projection" in outputs else outputs["logits"]
    return signal


def _written(
    net: nn.Module, batch: Batch, samples: Any, prompt: int, max_new_tokens: int | None
) -> tuple[Batch, float]:
    """The most likely continuations, and the seconds that they took."""
    start = time.perf_counter()
    text = generate_with(
        batch,
        [net],
        lambda logits, numbers: sample_tokens(logits[0], numbers[:, 0], 0.0),
        samples.ends,
        prompt,
        max_new_tokens,
        vocabulary=samples.vocabulary,
    )
    return text, time.perf_counter() - start


def _row(
    samples: Any, batch: Batch, token: Tensor, number: int, most: int | None
) -> dict[str, str]:
    """The prompt, what was there, and what was written."""
    ids, label, valid = batch["input_ids"][number], batch["label"][number], batch["valid"][number]
    start = int((token[number] >= 0).int().argmax()) + 1
    there = label[start - 1 :][valid[start - 1 :]][:most]
    new = token[number][token[number] >= 0]
    parts = {"prompt": ids[:start], "text": there, "said": new}
    return {
        name: samples.text_of([one for one in part.tolist() if one not in samples.ends])
        for name, part in parts.items()
    }


def _rouge(rows: list[dict[str, str]]) -> float:
    """The mean F1 of the longest common subsequence of words (Lin 2004)."""
    from torchmetrics.text import ROUGEScore

    score = ROUGEScore(rouge_keys=("rougeL",))
    score.update([row["said"] for row in rows], [row["text"] for row in rows])
    return float(score.compute()["rougeL_fmeasure"])
