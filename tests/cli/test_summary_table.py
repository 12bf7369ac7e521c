"""Tables on the terminal for a metric where lower is better."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from instil.cli import summary_table
from instil.plan.statistics import paired_gain, summarize


def _result(distilled: list[float], alone: list[float]) -> dict[str, Any]:
    cost = {"parameters": 1000, "bytes": 4000, "latency": {"median_ms": 1.0}}
    return {
        "data": {"name": "text", "noun": "row", "train": 8, "labelled": 8, "test": 4},
        "seeds": list(range(len(alone))),
        "exported_seed": 0,
        "headline": "perplexity",
        "higher_is_better": False,
        "secondary": ["bits_per_byte"],
        "teacher": {"perplexity": summarize([11.5]), "bits_per_byte": summarize([0.91])},
        "alone": {"perplexity": summarize(alone), "bits_per_byte": summarize([2.41] * len(alone))},
        "distilled": {
            "perplexity": summarize(distilled),
            "bits_per_byte": summarize([2.398] * len(distilled)),
        },
        "gain": paired_gain(distilled, alone, higher_is_better=False),
        "gains": {},
        "cost": {"teacher": cost, "student": cost},
        "warnings": [],
    }


def _shown(result: dict[str, Any], show: Any = summary_table.show) -> str:
    console = Console(record=True, width=140)
    show(result, console)
    return console.export_text()


def test_perplexity_is_shown_with_its_direction_and_with_bits_per_byte() -> None:
    text = _shown(_result([668.2], [709.2]))
    for part in ("709.2", "668.2", "+41.00", "11.50", "bits per byte", "2.398"):
        assert part in text
    assert "%" not in text
    assert "Lower perplexity is better; a positive gain is a reduction of perplexity." in text
    assert "Distillation lowers the perplexity by 41.00 against the same student alone" in text


def test_a_clear_loss_over_three_seeds_is_named() -> None:
    text = _shown(_result([712.0, 715.0, 713.0], [668.2, 670.1, 669.0]))
    assert "Distillation raises the perplexity by" in text
    assert "larger than noise" in text
    assert "> noise" in text


def test_exported_files_have_their_own_metrics() -> None:
    result = _result([453.5], [460.0])
    files = {"f16": (453.6, 2.2461), "q4_0": (482.2, 2.2684)}
    result["export"] = {
        name: {"file": name, "bytes": 1000, "perplexity": value, "bits_per_byte": bits}
        for name, (value, bits) in files.items()
    }
    text = _shown(result, summary_table.show_export)
    for part in ("453.5", "453.6", "482.2", "2.246", "2.268"):
        assert part in text


def test_warnings_keep_their_brackets() -> None:
    result = _result([668.2], [709.2])
    result["warnings"] = ['no ONNX file: pip install "instil[export]"']
    assert 'Warning: no ONNX file: pip install "instil[export]".' in _shown(result)


def test_a_narrow_terminal_cuts_no_value() -> None:
    result = _result([668.2], [709.2])
    result["secondary"] = [f"metric_with_a_long_name_{i}" for i in range(4)]
    for i, name in enumerate(result["secondary"]):
        result["alone"][name] = summarize([1234.5 + i])
    console = Console(record=True, width=80)
    summary_table.show(result, console)
    text = console.export_text()
    assert "…" not in text
    for value in ("metric with a long name 3", "123450.0 %", "123750.0 %", "1 ms"):
        assert value in text
