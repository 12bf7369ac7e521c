"""Reported results: schema, sources, names, and their separation from measured results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from instil import catalogue
from instil.comparison.compare import compare
from instil.comparison.reported import (
    FOLDER,
    ReportedBenchmark,
    benchmark_names,
    load_reported,
    select_reported,
)
from instil.recipe.packaged import benchmark_recipes
from tests.comparison.folders import write_run

NAMES = benchmark_names()
COMMIT = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/blob/[0-9a-f]{40}/\S+\.(md|tsv)$")
OWN = {
    *("simkd", "crd", "dkd", "dist", "mgd", "fgd", "ofd", "norm", "sskd", "itrd", "wttm"),
    *("sdd", "crosskd", "pkd", "detr_distill", "bingo", "alpha_beta", "vitkd", "clip_feature"),
}
"""Methods that are better than no teacher wherever they are reported."""
PAPER = re.compile(r"https://(arxiv\.org/abs/\d{4}\.\d{4,5}$|openreview\.net/|github\.com/)")


def test_there_are_benchmarks() -> None:
    assert set(NAMES) >= {"cifar100", "imagenet", "cityscapes", "coco", "glue", "librispeech"}
    assert set(NAMES) >= {"ade20k", "cifar10_diffusion", "imagenet_vit", "imagenet_zero_shot"}
    assert set(NAMES) >= {"instruction_following", "superb"}


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_paper_a_table_a_setting_and_a_fixed_source(name: str) -> None:
    benchmark = load_reported(name)
    assert {table.source for table in benchmark.tables} == set(benchmark.sources)
    columns = [column for table in benchmark.tables for column in table.columns]
    assert {column.partition("/")[0] for column in columns} == set(benchmark.pairs)
    for source in benchmark.sources.values():
        assert PAPER.match(source.paper), source.paper
        assert COMMIT.match(source.read), source.read


@pytest.mark.parametrize("name", NAMES)
def test_methods_tasks_and_recipes_are_those_of_the_package(name: str) -> None:
    benchmark = load_reported(name)
    kinds = ("objective", "scheme", "baseline")
    methods = {method for kind in kinds for method in catalogue.files(kind)} | {"teacher"}
    named = {row.method for table in benchmark.tables for row in table.rows if row.method}
    assert named <= methods
    assert benchmark.task in catalogue.files("task")
    assert set(benchmark.recipes) <= set(benchmark_recipes())


@pytest.mark.parametrize("name", NAMES)
def test_values_have_the_unit_and_distillation_helps_on_average(name: str) -> None:
    """A column that was shifted or typed in another unit would show here."""
    for table in load_reported(name).tables:
        values = [value for row in table.rows for value in row.values if value is not None]
        smallest = 3 if table.unit == "percent" else 1
        assert all(smallest < value < 100 for value in values)
        rows = {row.method: row.values for row in table.rows}
        if "alone" not in rows:
            continue
        for method in OWN & set(rows):
            pairs = zip(rows[method], rows["alone"], strict=True)
            gains = [a - b for a, b in pairs if a is not None and b is not None]
            mean = sum(gains) / len(gains)
            assert (mean > 0) == table.higher_is_better, (table.table, method)


def test_single_numbers_are_those_of_the_sources() -> None:
    cifar = load_reported("cifar100")
    (kd, *_), *_ = cifar.values("kd", "resnet56-resnet20")
    assert kd == 70.66
    crd = cifar.values("crd", "wrn_40_2-shufflenetv1")
    assert [(value, table.source) for value, table in crd] == [
        (76.05, "repdistiller"),
        (75.96, "sskd"),
    ]
    assert cifar.values("fsp", "wrn_40_2-wrn_40_1") == []
    imagenet = load_reported("imagenet")
    assert (71.70, "mdistiller") in [
        (value, table.source) for value, table in imagenet.values("dkd", "resnet34-resnet18")
    ]


def test_word_error_rates_fall_with_distillation() -> None:
    (table,) = load_reported("librispeech").tables
    assert not table.higher_is_better
    baseline = [row.values for row in table.rows if row.method == "alone"]
    distilled = [row.values for row in table.rows if row.method is None]
    assert len(baseline) == len(distilled) == 4
    for before, after in zip(baseline, distilled, strict=True):
        assert all(b > a for b, a in zip(before, after, strict=True) if a and b)


def test_unknown_names_have_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"--reported: unknown benchmark cifar10\. .*cifar100"):
        select_reported("cifar10")
    with pytest.raises(ValueError, match=r"--reported: unknown pair resnet56-resnet21 of cifar100"):
        select_reported("cifar100/resnet56-resnet21")


def test_a_wrong_file_is_refused() -> None:
    text = (FOLDER / "coco.yaml").read_text()
    facts = yaml.safe_load(text)
    facts["tables"][0]["rows"][0]["values"].pop()
    with pytest.raises(ValidationError, match=r"wrong length\. Expected 10 values"):
        ReportedBenchmark.model_validate(facts)
    facts = yaml.safe_load(text)
    facts["tables"][0]["columns"][0] = "a-b"
    with pytest.raises(ValidationError, match="unknown pair a-b"):
        ReportedBenchmark.model_validate(facts)
    facts = yaml.safe_load(text)
    facts["tables"][0]["source"] = "nobody"
    with pytest.raises(ValidationError, match="unknown source nobody"):
        ReportedBenchmark.model_validate(facts)


def test_parts_of_a_benchmark_are_added_and_repeat_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instil.comparison.reported.FOLDER", tmp_path)
    facts = yaml.safe_load((FOLDER / "coco_prompted_masks.yaml").read_text())
    (tmp_path / "masks.yaml").write_text(yaml.safe_dump(facts))
    part = {"sources": {"other": facts["sources"]["edge_sam"]}}
    part["tables"] = [facts["tables"][0] | {"source": "other"}]
    (tmp_path / "masks.more.yaml").write_text(yaml.safe_dump(part))
    assert benchmark_names() == ["masks"]
    sources = [table.source for table in load_reported("masks").tables]
    assert sources == ["edge_sam", "other"]
    (tmp_path / "masks.more.yaml").write_text(yaml.safe_dump({"sources": facts["sources"]}))
    with pytest.raises(ValueError, match=r"masks\.more\.yaml: sources repeats edge_sam"):
        load_reported("masks")
    (tmp_path / "masks.more.yaml").write_text("title: another")
    with pytest.raises(ValueError, match=r"masks\.more\.yaml: unknown key title"):
        load_reported("masks")


def test_reported_numbers_have_a_column_of_their_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    comparison = compare([run], "cifar100/resnet56-resnet20")
    page = comparison.write(tmp_path / "compare.html").read_text()
    measured, _, reported = page.partition('<section id="reported">')
    assert "Reported in papers" in measured
    assert "70.66 test accuracy (repdistiller)" in measured
    assert "ResNet-56 → ResNet-20" in reported
    assert "ResNet-110" not in reported
    facts = comparison.to_json()
    without = compare([run]).to_json()
    assert facts["settings"] == without["settings"]
    assert facts["overall"] == without["overall"]
    all_pairs = compare([run], "cifar100").write(tmp_path / "compare.html").read_text()
    assert "ResNet-110" in all_pairs
    assert "Reported in papers</button>" not in all_pairs
