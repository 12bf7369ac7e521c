"""Quality, speed and memory of the texts that a language model generates."""

from __future__ import annotations

import re
import time
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs, as_net, batch_size, side_effect_free
from instil.engine.cpu_offload import device_of
from instil.functional.tokens.divergence import token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.signals import num_classes
from instil.functional.tokens.terms import forward_kl
from instil.generation.reader import index_batch
from instil.generation.rollout import EndTokens, generate_text, generate_with
from instil.generation.sampling import sample_tokens
from instil.generation.speculative_decoding import draft_acceptance
from instil.tasks.bases.peak_memory import PeakMemory
from instil.tasks.bases.verified_answers import verified_answers

SCORED_ROWS = 16
"""Number of rows with generated text where prompts have answers."""
SHOWN_ROWS = 4
"""Number of rows with generated text in the report."""
TEXT_TOKENS = 32
"""Number of generated tokens where the rows have no prompts."""

CHARACTERS = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Characters of Chinese and Japanese, which have no spaces between words."""
WORD = re.compile(rf"[{CHARACTERS}]|[^\W_{CHARACTERS}]+")
"""One word of a text, or one character of Chinese or Japanese."""


def texts_after_prompts(
    net: nn.Module, samples: Any, teacher: nn.Module | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """Generate the most likely text after the prompts of some samples, and measure it.

    Rows without prompts are continued from their middle.

    Args:
        net: language model.
        samples: rows of tokens with ``has_prompts``, ``text_of``, ``ends`` and ``vocabulary``.
        teacher: teacher of the model, if there is one.

    Returns:
        Metrics: ``rouge_l`` where prompts have answers, and those of ``verified_answers`` where
        the samples have a verifier. Details: ``continuations`` (dicts of ``prompt``, ``text`` and
        ``generated``), ``written_per_second`` (tokens), ``writing_bytes`` (peak memory beyond the
        weights) and, with a teacher, ``exposure_bias_gap`` and ``draft_acceptance`` (see
        ``generation.speculative_decoding.Acceptance``).
    """
    has_answers = bool(samples.has_prompts)
    batch, min_prompt_tokens = _prompts(net, samples, SCORED_ROWS if has_answers else SHOWN_ROWS)
    max_new_tokens = None if has_answers else TEXT_TOKENS
    with side_effect_free(net):
        generated, seconds = _generate(net, batch, samples, min_prompt_tokens, max_new_tokens)
        # The measurement intercepts every operation, so it is kept out of the timed generation.
        with PeakMemory() as memory:
            first_row = {key: value[:1] for key, value in batch.items()}
            _generate(net, first_row, samples, min_prompt_tokens, TEXT_TOKENS)
    rows = [
        _row_texts(samples, batch, generated["token"], i, max_new_tokens)
        for i in range(batch_size(batch))
    ]
    details = {
        "continuations": rows[:SHOWN_ROWS],
        "written_per_second": (generated["token"] >= 0).sum().item() / seconds,
        "writing_bytes": memory.peak,
    }
    if teacher is not None:
        limits = (samples.ends, min_prompt_tokens, max_new_tokens, samples.vocabulary)
        details["exposure_bias_gap"] = exposure_bias_gap(net, teacher, batch, *limits)
        details["draft_acceptance"] = draft_acceptance(net, teacher, batch, *limits)._asdict()
    metrics = {"rouge_l": rouge(rows)} if has_answers else {}
    if getattr(samples, "verifier", None) is not None:
        metrics |= verified_answers(net, samples)
    return metrics, details


def first_texts(net: nn.Module, samples: Any) -> list[str]:
    """Return the first tokens of the texts that a network generates for the shown prompts.

    Args:
        net: language model.
        samples: rows of tokens, as in ``texts_after_prompts``.
    """
    batch, min_prompt_tokens = _prompts(net, samples, SHOWN_ROWS)
    with side_effect_free(net):
        generated, _ = _generate(net, batch, samples, min_prompt_tokens, TEXT_TOKENS)
    return [_text_of(samples, token[token >= 0]) for token in generated["token"]]


def _prompts(net: nn.Module, samples: Any, num_rows: int) -> tuple[Batch, int]:
    """The first rows on the device of a network, and the smallest number of tokens of a prompt."""
    batch = samples.__getitems__(range(min(num_rows, len(samples))))
    device = device_of(net)
    batch = {key: value.to(device) for key, value in batch.items()}
    return batch, 1 if samples.has_prompts else batch["input_ids"].shape[1] // 2


@torch.no_grad()
def exposure_bias_gap(
    net: nn.Module,
    teacher: nn.Module,
    batch: Batch,
    end: EndTokens,
    min_prompt_tokens: int = 1,
    max_new_tokens: int | None = None,
    vocabulary: int | None = None,
) -> float:
    """Measure the exposure bias of a student (Arora et al. 2022).

    This is the divergence from the teacher on the student's own text minus the divergence on the
    text of the data. The paper divides the difference by the second divergence.

    Args:
        net: the student.
        teacher: the teacher, with ``logits`` or a ``projection``.
        batch: rows of tokens with prompts.
        end: see ``generation.rollout.generate_with``.
        min_prompt_tokens: see ``generation.rollout.generate_with``.
        max_new_tokens: see ``generation.rollout.generate_with``.
        vocabulary: see ``generation.rollout.generate_with``.

    Returns:
        KL(teacher | student) on text that the student samples, minus that on the text of the data
        after the same prompts, in nats per token. 0: its own text does not increase the divergence.
    """
    with side_effect_free(net):
        own = generate_text(
            as_net(net), batch, end, min_prompt_tokens, max_new_tokens, vocabulary=vocabulary
        )
        column = torch.arange(batch["valid"].shape[1], device=batch["valid"].device)[None]
        begin = own["valid"].int().argmax(1, keepdim=True)
        length = max_new_tokens or column.numel()
        is_compared = batch["valid"] & (column >= begin) & (column < begin + length)
        own_divergence = _mean_divergence(net, teacher, own, own["valid"])
        return own_divergence - _mean_divergence(net, teacher, batch, is_compared)


def _mean_divergence(
    net: nn.Module, teacher: nn.Module, batch: Batch, is_compared: Tensor
) -> float:
    """KL(teacher | student) in nats per token, over the tokens of both vocabularies."""
    total = 0.0
    # One row at a time, in chunks: the logits of many rows would not fit into memory.
    for i in range(batch_size(batch)):
        row = index_batch(batch, torch.tensor([i], device=is_compared.device))
        student_signal = _signal(net(row))
        teacher_signal = _signal(teacher(row))
        # Tokens that only one of the models has are padding of its vocabulary.
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
    signal: Signal = outputs["projection"] if "projection" in outputs else outputs["logits"]
    return signal


def _generate(
    net: nn.Module, batch: Batch, samples: Any, min_prompt_tokens: int, max_new_tokens: int | None
) -> tuple[Batch, float]:
    """The most likely continuations, and the time in seconds."""
    start = time.perf_counter()
    text = generate_with(
        batch,
        [net],
        lambda logits, uniforms: sample_tokens(logits[0], uniforms[:, 0], 0.0),
        samples.ends,
        min_prompt_tokens,
        max_new_tokens,
        vocabulary=samples.vocabulary,
    )
    return text, time.perf_counter() - start


def _row_texts(
    samples: Any, batch: Batch, token: Tensor, i: int, max_new_tokens: int | None
) -> dict[str, str]:
    """Prompt, text of the data and generated text of row ``i``."""
    is_generated = token[i] >= 0
    start = int(is_generated.int().argmax()) + 1
    rest = slice(start - 1, None)
    is_text = batch["valid"][i][rest]
    if samples.has_prompts:
        # A conversation has further answers after the one that is compared.
        is_text = is_text.int().cumprod(0).bool()
    parts = {
        "prompt": batch["input_ids"][i][:start],
        "text": batch["label"][i][rest][is_text][:max_new_tokens],
        "generated": token[i][is_generated],
    }
    return {name: _text_of(samples, part) for name, part in parts.items()}


def _text_of(samples: Any, token_ids: Tensor) -> str:
    text: str = samples.text_of([one for one in token_ids.tolist() if one not in samples.ends])
    return text


def rouge(rows: list[dict[str, str]]) -> float:
    """Return the mean F1 of the longest common subsequence of words (ROUGE-L, Lin 2004).

    Args:
        rows: texts, each with ``generated`` and the expected ``text``.
    """
    from torchmetrics.text import ROUGEScore

    # By default it drops all letters but a to z, and a text in another script is empty.
    score = ROUGEScore(normalizer=_words, rouge_keys=("rougeL",))
    score.update([row["generated"] for row in rows], [row["text"] for row in rows])
    return float(score.compute()["rougeL_fmeasure"])


def _words(text: str) -> str:
    """Words in lower case with spaces between them; each character of Chinese is one."""
    return " ".join(WORD.findall(text.lower()))
