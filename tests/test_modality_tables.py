"""Searches in ``benchmarks/modalities`` and their tables in the documentation."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "modalities"
MEASURED = sorted(FOLDER.glob("*.json"))


def finalist(name: str, mean: float, differences: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "test": {"mean": mean / 100, "std": 0.005, "values": [mean / 100]},
        "differences": differences,
    }


def difference(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": mean / 100, "interval": [low / 100, high / 100]}


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module ``docs/modality_tables.py`` with one row of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import modality_tables

    monkeypatch.setattr(modality_tables, "FOLDER", tmp_path)
    described = {"title": "Clouds", "sees_more": "256 points instead of 32"}
    (tmp_path / "clouds.yaml").write_text(yaml.safe_dump(described))
    gains = {"alone": difference(24.7, 20.2, 29.3), "pseudo_labels": difference(0.1, -2.2, 2.3)}
    measured = {
        "headline": "accuracy",
        "winner": "kd",
        "teacher": {"score": 0.728},
        "finalists": [
            finalist("kd", 53.4, gains),
            finalist("pseudo_labels", 53.3, {"alone": difference(24.6, 20.1, 29.2)}),
            finalist("alone", 28.6, {}),
        ],
        "final_seeds": [1, 2, 3, 4, 5],
        "schedule": {"num_references": 3, "rungs": [{"num_trials": 1}, {"num_trials": 3}]},
        "steps": 5000,
        "seconds": 600.0,
    }
    (tmp_path / "clouds.json").write_text(json.dumps(measured))
    return modality_tables


ONE_TRIAL = {
    "schedule": {"num_references": 1, "rungs": [{"num_trials": 1}]},
    "final_seeds": [0],
    "steps": 10,
    "seconds": 60,
}
"""Row of a search with one trial and one reference arm."""


def test_a_marker_becomes_the_table_of_its_row(tables: ModuleType) -> None:
    text = tables.insert_tables("Before.\n\n<!-- evidence: clouds -->\n\nAfter.\n")
    assert text.startswith("Before.\n\n| method |")
    assert text.endswith("After.\n")
    assert "| teacher (256 points instead of 32) | 72.8 |  |  |" in text
    assert "| **`kd`** | 53.4 ± 0.5 | +0.1 (-2.2 to +2.3) | **+24.7 (+20.2 to +29.3)** |" in text
    assert "4 trials for each finalist and each of the 3 reference arms" in text
    assert "1 trial for each finalist and the reference arm, " in tables._note("one", ONE_TRIAL)


def test_further_metrics_have_their_own_gains(tables: ModuleType, tmp_path: Path) -> None:
    described = yaml.safe_load((tmp_path / "clouds.yaml").read_text()) | {"further": ["recall"]}
    (tmp_path / "clouds.yaml").write_text(yaml.safe_dump(described))
    measured = json.loads((tmp_path / "clouds.json").read_text())
    measured["teacher"]["test"] = {"recall": 0.5}
    for entry, mean in zip(measured["finalists"], (0.3, 0.2, 0.1), strict=True):
        values = [mean - 0.01, mean, mean + 0.01]
        entry["further_test"] = {"recall": {"mean": mean, "std": 0.01, "values": values}}
    (tmp_path / "clouds.json").write_text(json.dumps(measured))
    text = tables.evidence("clouds")
    assert "| 72.8 |  |  | 50.0 |  |" in text
    assert "| 30.0 ± 1.0 | **+20.0 (+20.0 to +20.0)** |" in text
    assert "| 10.0 ± 1.0 |  |" in text


def test_an_unknown_row_is_an_error(tables: ModuleType) -> None:
    with pytest.raises(FileNotFoundError, match=r"cloud\.yaml"):
        tables.insert_tables("<!-- evidence: cloud -->")


def test_the_overview_names_the_best_method_besides_the_baselines(tables: ModuleType) -> None:
    assert (
        "| Clouds | 256 points instead of 32 | accuracy | `kd` | `kd` | +0.1" in tables.overview()
    )


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_a_measured_row_has_five_seeds_and_equal_trials(path: Path) -> None:
    measured = json.loads(path.read_text(encoding="utf-8"))
    assert len(measured["final_seeds"]) >= 5
    for entry in measured["finalists"]:
        assert len(entry["test"]["values"]) == len(measured["final_seeds"])
    arms = {entry["name"] for entry in measured["finalists"]}
    # Targets that are not classes have no smoothed labels, so that only these two always exist.
    assert {"alone", "pseudo_labels"} & arms
    assert path.with_suffix(".yaml").exists()


def test_every_marker_has_a_measured_row() -> None:
    pattern = re.compile(r"<!-- evidence: (\w+) -->")
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for name in pattern.findall(page.read_text(encoding="utf-8")):
            assert (FOLDER / f"{name}.json").exists(), f"{page.name}: {name}"


def test_the_site_has_the_tables() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import modality_tables
    finally:
        sys.path.remove(str(ROOT / "docs"))
    page = modality_tables.overview()
    for path in MEASURED:
        assert f"## {yaml.safe_load(path.with_suffix('.yaml').read_text())['title']}\n" in page


def test_the_table_of_trees_has_all_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import tree_table

    text = tree_table.insert_table(f"Before.\n\n{tree_table.MARKER}\n")
    measured = json.loads(tree_table.RESULT.read_text(encoding="utf-8"))
    assert len(measured["seeds"]) == 5
    sizes = {str(size) for size in measured["sizes"]}
    for name, student in measured["students"].items():
        for arm in tree_table.ARMS:
            mean = 100 * student["arms"][arm]["accuracy"]["mean"]
            assert f"| {name} | {arm} | `{student['option']}: " in text
            assert f"| {mean:.1f} ± " in text
            assert set(student["arms"][arm]["validation"]) == sizes
    page = (ROOT / "docs" / "modalities" / "tabular.md").read_text(encoding="utf-8")
    assert tree_table.MARKER in page


def test_the_table_of_verifiable_sums_has_every_measured_arm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import arithmetic_table

    text = arithmetic_table.insert_table(f"Before.\n\n{arithmetic_table.MARKER}\n")
    measured = json.loads(arithmetic_table.RESULT.read_text(encoding="utf-8"))
    assert arithmetic_table.MARKER not in text
    for name, arm in measured["arms"].items():
        (line,) = (
            line
            for line in text.splitlines()
            if line.startswith(f"| {arithmetic_table.TITLES[name]} |")
        )
        assert f"{100 * arm['solved']['mean']:.1f} ±" in line
    assert arithmetic_table.MARKER in (ROOT / "docs" / "language.md").read_text(encoding="utf-8")


def test_the_table_of_compression_has_all_students(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import compression_table

    text = compression_table.insert_table(f"Before.\n\n{compression_table.MARKER}\n")
    measured = json.loads(compression_table.RESULT.read_text(encoding="utf-8"))
    assert len(measured["seeds"]) == 5
    for name, student in measured["students"].items():
        assert f"| {name} | {student['parameters']:,} |" in text
        for arm in compression_table.ARMS:
            values = student["arms"][arm]["values"]
            assert f"| {20 * sum(values):.1f} ± " in text
        for other in ("labels", "pseudo-labels"):
            gain = student["gains"][other]["mean"]
            distilled, reference = (student["arms"][arm]["mean"] for arm in ("distilled", other))
            assert gain == pytest.approx(distilled - reference)
            assert f"{100 * gain:+.1f} (" in text
    page = (ROOT / "docs" / "compression.md").read_text(encoding="utf-8")
    assert compression_table.MARKER in page


def test_the_tables_of_continual_learning_are_inserted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import continual_table

    page = (ROOT / "docs" / "tutorials" / "continual.md").read_text(encoding="utf-8")
    assert page.count(continual_table.MARKER) == 1
    text = continual_table.insert_table(page)
    assert continual_table.MARKER not in text
    measured = json.loads(continual_table.RESULT.read_text(encoding="utf-8"))
    for name, entry in measured["arms"].items():
        accuracy = f"{100 * entry['accuracy']['mean']:.1f} ± {100 * entry['accuracy']['std']:.1f}"
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert accuracy in row


def test_the_table_of_federated_distillation_is_inserted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import federated_table

    page = (ROOT / "docs" / "federated.md").read_text(encoding="utf-8")
    assert page.count(federated_table.MARKER) == 1
    text = federated_table.insert_table(page)
    assert federated_table.MARKER not in text
    measured = json.loads(federated_table.RESULT.read_text(encoding="utf-8"))
    for name, entry in measured["arms"].items():
        values = entry["accuracy"]["values"]
        assert len(values) == len(measured["seeds"])
        assert entry["accuracy"]["mean"] == pytest.approx(sum(values) / len(values))
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert f"{100 * entry['accuracy']['mean']:.1f} ±" in row


def test_the_tables_of_diffusion_are_inserted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import diffusion_table

    page = (ROOT / "docs" / "modalities" / "diffusion.md").read_text(encoding="utf-8")
    text = diffusion_table.insert_tables(page)
    for marker, name in diffusion_table.MARKERS.items():
        assert page.count(marker) == 1
        assert marker not in text
        file = ROOT / "benchmarks" / f"{name}.json"
        lines = json.loads(file.read_text(encoding="utf-8"))["rows"]
        of_seeds = [line for line in lines if line["seeds"] == 5]
        assert of_seeds
        for line in of_seeds:
            cell = f"{line['frechet_distance']:.2f} ± {line['frechet_distance_std']:.2f}"
            assert f" {cell} |" in text
        assert {line["seeds"] for line in lines} <= {1, 5}


def test_the_table_of_representations_has_every_measured_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import representation_table

    page = (ROOT / "docs" / "modalities" / "representation.md").read_text(encoding="utf-8")
    assert page.count(representation_table.MARKER) == 1
    text = representation_table.insert_table(page)
    assert representation_table.MARKER not in text
    rows = json.loads(representation_table.RESULT.read_text(encoding="utf-8"))["rows"]
    measured = {row["command"]: row for row in rows if row["command"].startswith("representation/")}
    assert set(representation_table.TITLES) == set(measured)
    for command, title in representation_table.TITLES.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
        assert f"| {100 * measured[command]['distilled']['accuracy']['mean']:.1f} ±" in line
        gain = measured[command]["gains"]["random_init"]["mean"]
        assert f"{100 * gain:+.1f} (" in line
