"""Texts that the networks generate for the same prompts."""

from __future__ import annotations

from html import escape
from typing import Any

from instil.report.quantities import count, points, size
from instil.report.record import Record


def continuations(record: Record) -> str:
    """Section with prompt, reference and generated texts, and the speed of generation.

    Returns:
        HTML; empty for a run without generated texts.
    """
    arms = [
        arm for arm in record.arms if isinstance(record.get("details", arm, "continuations"), list)
    ]
    if not arms:
        return ""
    rows = {arm: record.get_list("details", arm, "continuations") for arm in arms}
    lists = []
    for index, row in enumerate(rows[arms[0]]):
        generated = {arm: rows[arm][index] for arm in arms if index < len(rows[arm])}
        lists.append(_term_list(record, row, generated))
    return (
        '<div class="continuations"><h3>Generated continuations of the same prompts</h3>'
        f"{''.join(lists)}{_speed(record, arms)}</div>"
    )


def _term_list(record: Record, row: dict[str, Any], generated: dict[str, dict[str, Any]]) -> str:
    texts = [("Prompt", row.get("prompt")), ("Reference", row.get("text"))]
    for arm, arm_row in generated.items():
        name = record.arm_name(arm)
        if "untrained" in arm_row:
            texts.append((f"{name}, before its training", arm_row["untrained"]))
        texts.append((name, arm_row.get("generated")))
    terms = [
        f"<dt>{escape(term)}</dt><dd><pre tabindex=0>{escape(str(text or ''))}</pre></dd>"
        for term, text in texts
    ]
    return f"<dl>{''.join(terms)}</dl>"


def _speed(record: Record, arms: list[str]) -> str:
    """Speed and memory of generation, and the exposure bias of each network."""
    sentences = []
    for arm in arms:
        speed = record.get_number("details", arm, "written_per_second")
        memory = record.get_number("details", arm, "writing_bytes")
        if speed is None or memory is None:
            continue
        text = (
            f"{count(round(speed))} tokens per second, {size(memory)} of memory in addition to the "
            "weights"
        )
        gap = record.get_number("details", arm, "exposure_bias_gap")
        if gap is not None:
            text += (
                f", exposure bias {points(gap, is_fraction=False)} nats per token (divergence from "
                "the teacher on its own text minus that on reference text)"
            )
        sentences.append(f"{record.arm_name(arm)}: {text}{_draft(record, arm)}")
    return f"<p>{escape('; '.join(sentences))}.</p>" if sentences else ""


def _draft(record: Record, arm: str) -> str:
    """Acceptance of an arm as a draft of the teacher; empty if it was not measured."""
    expected = record.get_number("details", arm, "draft_acceptance", "expected")
    tokens = record.get_number("details", arm, "draft_acceptance", "expected_tokens")
    if expected is None or tokens is None:
        return ""
    return (
        f", as a draft of the teacher {points(expected, sign=False)} % of its tokens are accepted "
        f"({tokens:.1f} tokens per forward pass of the teacher with four proposed tokens)"
    )
