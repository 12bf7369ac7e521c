"""Generated texts of the networks on the page."""

from __future__ import annotations

from pathlib import Path

from instil.report.continuations import continuations
from instil.report.record import Record


def record(*arms: str) -> Record:
    row = {"prompt": "def <f>", "text": "(x):", "generated": "(y) & more"}
    details = {
        arm: {"continuations": [row, row], "written_per_second": 12.4, "writing_bytes": 2_000_000}
        for arm in arms
    }
    return Record(
        Path(),
        {
            **{arm: {"likelihood": {"mean": 0.5}} for arm in ("teacher", "alone", "distilled")},
            "details": details,
        },
    )


def test_every_prompt_has_all_networks_and_no_text_is_markup() -> None:
    page = continuations(record("teacher", "distilled"))
    assert page.count("<dl>") == 2
    assert page.count("def &lt;f&gt;") == 2
    assert page.count("(y) &amp; more") == 4
    assert "12 tokens per second, 2.0\N{NARROW NO-BREAK SPACE}MB of memory" in page
    assert "0.25" not in page


def test_the_text_before_the_training_stands_before_the_one_after() -> None:
    one = record("teacher", "distilled")
    row = {"prompt": "def <f>", "text": "(x):", "generated": "after", "untrained": "<before>"}
    one.result["details"]["distilled"]["continuations"] = [row, row]
    page = continuations(one)
    assert page.count(", before its training</dt>") == 2
    assert page.index("&lt;before&gt;") < page.index(">after<")
    assert page.index("(y) &amp; more") < page.index("&lt;before&gt;"), "the teacher comes first"


def test_exposure_bias_is_shown() -> None:
    one = record("distilled")
    one.result["details"]["distilled"]["exposure_bias_gap"] = 0.25
    assert "exposure bias +0.250 nats per token" in continuations(one)


def test_without_texts_the_section_is_empty() -> None:
    assert continuations(record()) == ""


def test_the_acceptance_as_a_draft_is_shown() -> None:
    one = record("distilled")
    one.result["details"]["distilled"]["draft_acceptance"] = {
        "expected": 0.8125,
        "expected_tokens": 3.44,
    }
    page = continuations(one)
    assert "81.2 % of its tokens are accepted (3.4 tokens per forward pass" in page
