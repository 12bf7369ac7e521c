"""What a language model writes after the prompts of some samples, how like the answers it is, how fast, and in how much memory."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, dry, size
from instil.schemes.writing import drawn, written
from instil.tasks.held import Held

JUDGED, SHOWN, LENGTH = 16, 4, 32
"""Rows that are gone on with where prompts have answers, rows that are shown, and tokens that are written where texts have no prompt."""


def texts_after_prompts(net: nn.Module, samples: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """``rouge_l`` where prompts have answers; ``continuations``, ``written_per_second`` and ``writing_bytes``.

    ``samples``: rows of tokens that know what their numbers say (``text_of``).
    """
    batch = samples.__getitems__(range(min(JUDGED, len(samples))))
    answers = not bool(batch["valid"][:, 0].all())
    batch = batch if answers else {key: value[:SHOWN] for key, value in batch.items()}
    half = 1 if answers else batch["input_ids"].shape[1] // 2
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    batch = {key: value.to(device) for key, value in batch.items()}
    with dry(net):
        said, seconds = _written(net, batch, samples.end, half, None if answers else LENGTH)
        with Held() as held:
            _written(net, {key: value[:1] for key, value in batch.items()}, samples.end, half, LENGTH)
    rows = [_row(samples, batch, said["token"], number, None if answers else LENGTH) for number in range(size(batch))]
    speed = (said["token"] >= 0).sum().item() / seconds
    details = {"continuations": rows[:SHOWN], "written_per_second": speed, "writing_bytes": held.most}
    return ({"rouge_l": _rouge(rows)} if answers else {}), details


def _written(net: nn.Module, batch: Batch, end: int, prompt: int, most: int | None) -> tuple[Batch, float]:
    began = time.perf_counter()
    said = written(batch, [net], lambda logits, numbers: drawn(logits[0], numbers[:, 0], 0.0), end, prompt, most)
    return said, time.perf_counter() - began


def _row(samples: Any, batch: Batch, token: Tensor, number: int, most: int | None) -> dict[str, str]:
    """The prompt, what was there, and what was written."""
    ids, label, valid = batch["input_ids"][number], batch["label"][number], batch["valid"][number]
    start = int((token[number] >= 0).int().argmax()) + 1
    there = label[start - 1 :][valid[start - 1 :]][:most]
    new = token[number][token[number] >= 0]
    parts = {"prompt": ids[:start], "text": there, "said": new}
    return {name: samples.text_of([one for one in part.tolist() if one != samples.end]) for name, part in parts.items()}


def _rouge(rows: list[dict[str, str]]) -> float:
    """The mean F1 of the longest common subsequence of words (Lin 2004)."""
    from torchmetrics.text import ROUGEScore

    score = ROUGEScore(rouge_keys=("rougeL",))
    score.update([row["said"] for row in rows], [row["text"] for row in rows])
    return float(score.compute()["rougeL_fmeasure"])
