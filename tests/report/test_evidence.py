"""The verdict in three steps, on the page, in its title and on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from instil.cli import summary_table
from instil.plan.results import result_warnings
from instil.plan.statistics import paired_gain
from instil.report import evidence
from instil.report.gain_plot import gain_plot
from instil.report.headline import headline_sentence
from instil.report.measurement import measurement_terms
from instil.report.page import render
from instil.report.plots import Plot
from instil.report.record import Record
from instil.report.run_files import read_run
from instil.report.trust import trust_checks
from tests.report.sample import change, make_run

BETTER = {"mean": 0.1, "interval": [0.05, 0.15], "significant": True}
NOISE = {"mean": 0.01, "interval": [-0.02, 0.04], "significant": False}
WORSE = {"mean": -0.044, "interval": [-0.068, -0.019], "significant": True}


def record_of(folder: Path, alone: Any, smoothing: Any, pseudo: Any, **changes: Any) -> Record:
    def edit(result: dict[str, Any]) -> None:
        result["gain"] |= alone
        result["gains"]["label_smoothing"] |= smoothing
        result["gains"]["pseudo_labels"] |= pseudo
        result.update(changes)

    return read_run(change(make_run(folder / "run"), edit))


@pytest.mark.parametrize(
    ("alone", "smoothing", "pseudo", "tone", "badge", "sentence"),
    [
        (
            *(BETTER, BETTER, BETTER, "good", "It worked"),
            "Better than the student alone and than label smoothing and pseudo-labels.",
        ),
        (
            *(BETTER, BETTER, NOISE, "open", "No better than pseudo-labels"),
            "Better than the student alone, but not clearly better than pseudo-labels.",
        ),
        (
            *(BETTER, BETTER, WORSE, "bad", "Worse than pseudo-labels"),
            "Clearly worse than pseudo-labels, but better than the student alone.",
        ),
        (
            *(NOISE, NOISE, WORSE, "bad", "Worse than pseudo-labels"),
            "Clearly worse than pseudo-labels, without a gain over the student alone.",
        ),
        (
            *(NOISE, BETTER, BETTER, "open", "Within noise"),
            "The gain over the student alone is within the noise.",
        ),
        (
            *(WORSE, BETTER, BETTER, "bad", "Worse than alone"),
            "Distillation is worse than the student alone.",
        ),
    ],
)
def test_badge_and_title_follow_the_evidence(
    tmp_path: Path,
    alone: Any,
    smoothing: Any,
    pseudo: Any,
    tone: str,
    badge: str,
    sentence: str,
) -> None:
    record = record_of(tmp_path, alone, smoothing, pseudo)
    judgement = evidence.verdict(record)
    assert (judgement.tone, judgement.badge, judgement.sentence) == (tone, badge, sentence)
    page = render(record)
    assert f'<span class="verdict {tone}">{badge}</span>' in page
    assert f": {badge.lower()} · instil</title>" in page


def test_without_other_baselines_only_the_student_alone_is_named(tmp_path: Path) -> None:
    record = record_of(tmp_path, BETTER, BETTER, BETTER, gains={})
    assert evidence.verdict(record).badge == "Better than alone"


def test_warnings_distinguish_worse_from_not_better(tmp_path: Path) -> None:
    record = record_of(tmp_path, BETTER, NOISE, WORSE, headline="accuracy", higher_is_better=True)
    assert result_warnings(record.result) == [
        "distillation is not clearly better than label smoothing on this data",
        "distillation is clearly worse than the teacher's hard pseudo-labels on this data",
    ]
    sentences = [sentence for _, sentence in trust_checks(record)]
    assert any(
        "clearly worse than the baseline pseudo-labels" in sentence for sentence in sentences
    )


def test_few_equal_differences_are_within_the_noise(tmp_path: Path) -> None:
    """Their interval is one number, and the exact test of two signs has p = 0.5."""
    equal = paired_gain([0.9, 0.8], [0.8, 0.7])
    record = record_of(tmp_path, equal, BETTER, BETTER)
    sentences = [sentence for _, sentence in trust_checks(record)]
    assert not any("contains zero" in sentence for sentence in sentences)
    assert any("equal differences are too few to be significant" in one for one in sentences)
    plot = gain_plot(record)
    assert isinstance(plot, Plot)
    symbols = [trace["marker"]["symbol"] for trace in plot.data]
    assert symbols == ["circle-open", "circle", "circle"]


@pytest.mark.parametrize(
    ("is_lower_better", "tone", "price"),
    [(False, "good", "nothing"), (True, "open", "30.0 points")],
)
def test_the_price_of_int8_has_the_direction_of_the_metric(
    tmp_path: Path, is_lower_better: bool, tone: str, price: str
) -> None:
    record = record_of(tmp_path, BETTER, BETTER, BETTER, higher_is_better=not is_lower_better)
    record.result["export"]["int8"] |= {"accuracy": 0.5, "accuracy_float": 0.2}
    checks = {text: own for own, text in trust_checks(record) if text.startswith("8-bit")}
    ((sentence, own_tone),) = checks.items()
    assert (f"cost {price} (" in sentence, own_tone) == (True, tone)


def test_the_terminal_shows_the_verdict(tmp_path: Path) -> None:
    record = record_of(tmp_path, BETTER, BETTER, WORSE, headline="accuracy")
    console = Console(record=True, width=100)
    summary_table.show(record.result, console)
    verdict = "Verdict: Clearly worse than pseudo-labels, but better than the student alone."
    assert verdict in console.export_text()


def test_the_headline_has_the_labels_of_student_and_teacher(tmp_path: Path) -> None:
    labels = {
        "student": 520,
        "teachers": [{"samples": 3900, "labelled": 3900}],
        "samples_seen": {"alone": 520, "pseudo_labels": 3900, "distilled": 3900},
    }
    data = {"name": "letters", "train": 3900, "labelled": 520}
    record = record_of(tmp_path, BETTER, BETTER, BETTER, labels=labels, data=data)
    sentence = headline_sentence(record).replace("\u202f", " ")
    assert sentence.startswith(
        "With 520 of 3 900 labels, from a teacher trained with 3 900, the distilled student reaches"
    )
    terms = dict(measurement_terms(record))
    assert "same order" not in terms["Same for all"]
    seen = terms["Samples seen"].replace("\u202f", " ")
    assert seen.startswith("student alone: 520; pseudo-labels, distilled student: 3 900.")
    labels["samples_seen"] = dict.fromkeys(labels["samples_seen"], 3900)
    record.result["labels"] = labels | {"student": 3900}
    assert "same samples in the same order" in dict(measurement_terms(record))["Same for all"]
    assert headline_sentence(record).startswith("The distilled student reaches")


def test_terms_name_the_weights_that_were_measured(tmp_path: Path) -> None:
    terms = dict(measurement_terms(record_of(tmp_path, BETTER, BETTER, BETTER)))
    assert terms["Numbers"].startswith("Metrics are those of the last epoch, not of the best one.")
    assert "same number of steps" in terms["Same for all"]
    training = {"keep": "best", "average": 0.999, "early_stopping": {"patience": 5}}
    record = record_of(tmp_path, BETTER, BETTER, BETTER, training=training)
    terms = dict(measurement_terms(record))
    assert "best validation metric, in every arm. The weights are a moving" in terms["Numbers"]
    assert "end by the same rule of early stopping" in terms["Same for all"]


@pytest.mark.parametrize(
    ("level", "words"),
    [
        (0.11, "; the teacher itself (11.0 %) is hardly better than guessing."),
        (0.7, "; that is more than its teacher reaches (70.0 %)."),
        (0.99, "% of the teacher’s accuracy"),
    ],
)
def test_the_headline_compares_with_a_useful_teacher_only(
    tmp_path: Path, level: float, words: str
) -> None:
    teacher = {"accuracy": {"mean": level, "std": None, "values": [level]}}
    record = record_of(tmp_path, BETTER, BETTER, BETTER, teacher=teacher)
    sentence = headline_sentence(record).replace("\u202f", " ")
    assert words in sentence
    assert ("keeps" in sentence) == (level == 0.99)


def test_faster_counts_the_exported_file(tmp_path: Path) -> None:
    record = record_of(tmp_path, BETTER, BETTER, BETTER)
    page = render(record).replace("\u202f", " ")
    assert "<dd>50×<small>0.812 ms in PyTorch to 0.0163 ms as the ONNX file</small></dd>" in page
    record.result.pop("export")
    page = render(record).replace("\u202f", " ")
    assert "<dd>8.5×<small>0.812 ms to 0.0957 ms</small></dd>" in page


def test_a_baseline_of_a_plugin_has_the_name_that_the_run_stores(tmp_path: Path) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["short"] = result["label_smoothing"]
        result["gains"]["short"] = result["gains"]["label_smoothing"] | WORSE
        result["arms"] = {"short": {"title": "Short", "noun": "the short training"}}
        result["headline"] = "accuracy"

    record = read_run(change(make_run(tmp_path / "run"), edit))
    assert evidence.verdict(record).badge == "Worse than the short training"
    page = render(record)
    assert ">Short</th>" in page
    assert "points below the short training" in page
    console = Console(record=True, width=100)
    summary_table.show(record.result, console)
    assert "\n short " in console.export_text()
