"""What a language model writes after the prompts of some samples, how like the answers it is, how fast, and in how much memory."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, as_net, dry, full, size
from instil.schemes.writing import continued, drawn, written
from instil.tasks.held import Held

JUDGED, SHOWN, LENGTH = 16, 4, 32
"""Rows that are gone on with where prompts have answers, rows that are shown, and tokens that are written where texts have no prompt."""


def texts_after_prompts(
    net: nn.Module, samples: Any, teacher: nn.Module | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """``rouge_l`` where prompts have answers; ``continuations``, ``written_per_second``, ``writing_bytes``, with a teacher ``exposure_bias_gap``.

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
            _written(
                net, {key: value[:1] for key, value in batch.items()}, samples.end, half, LENGTH
            )
    rows = [
        _row(samples, batch, said["token"], number, None if answers else LENGTH)
        for number in range(size(batch))
    ]
    speed = (said["token"] >= 0).sum().item() / seconds
    details = {
        "continuations": rows[:SHOWN],
        "written_per_second": speed,
        "writing_bytes": held.most,
    }
    if teacher is not None:
        details["exposure_bias_gap"] = exposure_bias_gap(
            net, teacher, batch, samples.end, half, None if answers else LENGTH
        )
    return ({"rouge_l": _rouge(rows)} if answers else {}), details


@torch.no_grad()
def exposure_bias_gap(
    net: nn.Module,
    teacher: nn.Module,
    batch: Batch,
    end: int | None,
    prompt: int = 1,
    most: int | None = None,
) -> float:
    """Nats a token by which KL(teacher | net) is larger on text that the net draws than on the given text after the same prompts.

    The difference of the two rates of Arora et al. 2022, who divide it by the second one; zero for a net that a text of its own leads nowhere worse.
    """
    with dry(net):
        own = continued(as_net(net), batch, end, prompt, most)
        place, begin = (
            torch.arange(batch["valid"].shape[1], device=batch["valid"].device)[None],
            own["valid"].int().argmax(1, keepdim=True),
        )
        given = batch["valid"] & (place >= begin) & (place < begin + (most or place.numel()))
        return _apart(net, teacher, own, own["valid"]) - _apart(net, teacher, batch, given)


def _apart(net: nn.Module, teacher: nn.Module, batch: Batch, valid: Tensor) -> float:
    """KL(teacher | net) in nats a token, over the tokens that both know: what only one of them has is padding."""
    mine, theirs = (full(one(batch)["logits"][valid]) for one in (net, teacher))
    known = min(mine.shape[-1], theirs.shape[-1])
    mine, theirs = (side[:, :known].double().log_softmax(-1) for side in (mine, theirs))
    return F.kl_div(mine, theirs, reduction="sum", log_target=True).item() / max(len(mine), 1)


def _written(
    net: nn.Module, batch: Batch, end: int, prompt: int, most: int | None
) -> tuple[Batch, float]:
    began = time.perf_counter()
    said = written(
        batch,
        [net],
        lambda logits, numbers: drawn(logits[0], numbers[:, 0], 0.0),
        end,
        prompt,
        most,
    )
    return said, time.perf_counter() - began


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
        name: samples.text_of([one for one in part.tolist() if one != samples.end])
        for name, part in parts.items()
    }


def _rouge(rows: list[dict[str, str]]) -> float:
    """The mean F1 of the longest common subsequence of words (Lin 2004)."""
    from torchmetrics.text import ROUGEScore

    score = ROUGEScore(rouge_keys=("rougeL",))
    score.update([row["said"] for row in rows], [row["text"] for row in rows])
    return float(score.compute()["rougeL_fmeasure"])
