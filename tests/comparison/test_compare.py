"""Comparison of runs and searches: settings, copies, evidence and errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from instil.cli import main
from instil.comparison.compare import compare
from instil.comparison.labels import result_labels, setting_titles
from tests.comparison.folders import LEVELS, write_run, write_search


def test_only_results_of_one_task_data_and_metric_share_a_table(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "kd"),
        write_run(tmp_path / "dkd", (0.93, 0.94, 0.95), objective="dkd"),
        write_run(tmp_path / "other_data", data="moons"),
        write_run(tmp_path / "other_metric", metric="perplexity"),
        write_run(tmp_path / "other_size", num_test=400),
    ]
    groups = compare(runs).groups
    assert [(group.setting.data, group.setting.metric) for group in groups] == [
        ("digits", "accuracy"),
        ("moons", "accuracy"),
        ("digits", "perplexity"),
        ("digits", "accuracy"),
    ]
    ranked = [row.method for row in groups[0].results]
    assert ranked == ["dkd", "kd", "pseudo_labels", "label_smoothing", "alone", "teacher"]
    assert [row.method for row in groups[2].results][:2] == ["alone", "label_smoothing"]


def test_files_with_other_content_have_tables_of_their_own(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", test_digest="0123456789abcdef"),
        write_run(
            tmp_path / "b", (0.93, 0.94, 0.95), objective="dkd", test_digest="fedcba98765432"
        ),
    ]
    first, second = compare(runs).groups
    assert first.setting.details.endswith("test data 0123456789ab")
    assert second.setting.details.endswith("test data fedcba987654")
    titles = setting_titles([first, second])
    assert titles[0].startswith("classification, digits, test accuracy (")
    assert titles[0].endswith("test data 0123456789ab)")
    assert setting_titles([first]) == ["classification, digits, test accuracy"]
    (group,) = compare([runs[0], write_run(tmp_path / "without", objective="dkd")]).groups
    assert "test data" not in group.setting.details


def test_an_arm_that_runs_share_is_one_row(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", (0.9, 0.9, 0.9), objective="dkd")]
    (group,) = compare([*runs, runs[0]]).groups
    alone = next(row for row in group.results if row.method == "alone")
    assert {alone.folder, *alone.copies} == set(runs)
    kd = next(row for row in group.results if row.method == "kd")
    assert not kd.copies
    assert kd.axes.sources == ("logits",)
    assert [step for step, _ in kd.curve] == [10, 20, 30]
    assert [score for _, score in kd.curve] == pytest.approx([0.1, 0.2, 0.3])
    assert (kd.parameters, kd.num_bytes, kd.latency) == (1000, 4000, 0.1)


def test_arms_of_other_lengths_with_the_same_scores_stay_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{epochs}", epochs=epochs) for epochs in (10, 20)]
    (group,) = compare(runs).groups
    trained = [(row.method, row.training) for row in group.results]
    assert trained.count(("kd", "10 epochs")) == trained.count(("kd", "20 epochs")) == 1
    assert [row.method for row in group.results].count("teacher") == 1


def test_the_headline_of_a_search_may_be_a_number(tmp_path: Path) -> None:
    facts = {"headline": "nll", "metrics": {"nll": {"is_fraction": False}}}
    folder = write_search(tmp_path / "search", {"kd": (0.4, 0.5), "dkd": (0.6, 0.7)}, facts)
    assert not compare([folder]).groups[0].setting.is_fraction
    other = write_search(tmp_path / "other", {"kd": (0.4, 0.5), "dkd": (0.6, 0.7)})
    assert compare([other]).groups[0].setting.is_fraction


def test_a_search_joins_the_runs_of_its_data(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    scores = {"dkd": [0.95, 0.96], "alone": [0.8, 0.82]}
    folder = write_search(tmp_path / "search", scores)
    (group,) = compare([run, folder]).groups
    best = group.results[0]
    assert (best.method, best.origin, best.recipe, best.seeds) == (
        "dkd",
        "search",
        "best.yaml",
        (3, 4),
    )
    assert best.curve == ((10, 0.5), (20, 0.9))
    assert best.axes.sources == ("logits",)


def test_a_search_over_students_has_their_costs_and_a_teacher(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "search", {"depth-2": [0.9, 0.9], "depth-2 int8": [0.8, 0.9]})
    outcome = json.loads((folder / "search.json").read_text())
    for row, size in zip(outcome["finalists"], (4000, 1000), strict=True):
        row |= {"format": "float32", "parameters": 900, "bytes": size, "latency_ms": 0.2}
    outcome["teacher"] = {"score": 0.95, "parameters": 9000, "validation": {"accuracy": 0.96}}
    (folder / "search.json").write_text(json.dumps(outcome))
    (group,) = compare([folder]).groups
    assert [(row.method, row.student, row.num_bytes) for row in group.results] == [
        ("kd", "depth-2", 4000),
        ("kd", "depth-2 int8", 1000),
        ("teacher", "cnn (width=32)", None),
    ]
    assert group.results[0].axes.sources == ("logits",)


def test_a_search_over_students_and_methods_has_both_names(tmp_path: Path) -> None:
    scores = {"dkd@small": [0.9, 0.9], "alone@small int8": [0.8, 0.8], "recipe@recipe": [0.7, 0.7]}
    folder = write_search(tmp_path / "search", scores)
    outcome = json.loads((folder / "search.json").read_text())
    for row in outcome["finalists"]:
        row["format"] = "int8" if row["name"].endswith("int8") else "float32"
        row["kind"] = "baseline" if row["name"].startswith("alone") else "objective"
    (folder / "search.json").write_text(json.dumps(outcome))
    (group,) = compare([folder]).groups
    assert [(row.method, row.student, row.kind, row.axes.sources) for row in group.results] == [
        ("dkd", "small", "method", ("logits",)),
        ("alone", "small int8", "baseline", ()),
        ("kd", "cnn (width=6)", "method", ("logits",)),
    ]


def test_a_search_over_teachers_has_the_method_of_the_recipe(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "search", {"width_8": [0.9, 0.9], "recipe": [0.8, 0.8]})
    outcome = json.loads((folder / "search.json").read_text())
    outcome["finalists"][0]["kind"] = "teacher"
    (folder / "search.json").write_text(json.dumps(outcome))
    (group,) = compare([folder]).groups
    assert [(row.method, row.axes.sources) for row in group.results] == [
        ("kd, teacher width_8", ("logits",)),
        ("kd", ("logits",)),
    ]


def test_the_teacher_may_be_an_ensemble_and_has_a_training_of_its_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    path = folder / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["teacher"] = [recipe["teacher"], {"model": "mlp"}]
    recipe["teacher_train"] = {"epochs": 7, "steps": None}
    path.write_text(yaml.safe_dump(recipe))
    (group,) = compare([folder]).groups
    teacher = group.results[-1]
    assert (teacher.student, teacher.training) == ("cnn (width=32) + mlp", "7 epochs")


def test_a_label_has_only_details_that_differ(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", (0.9, 0.9, 0.9))]
    (group,) = compare(runs).groups
    assert result_labels(group)[:2] == ["kd, a", "kd, b"]


def test_differences_are_paired_and_corrected(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0.90, 0.92, 0.91))
    facts = compare([run]).to_json()["settings"][0]["results"]
    kd = facts[0]
    # 0.90 - 0.79, 0.92 - 0.80 and 0.91 - 0.81
    assert kd["differences"]["alone"]["mean"] == pytest.approx(0.11)
    assert kd["differences"]["alone"]["std"] == pytest.approx(0.01)
    assert kd["is_best"] is True
    assert facts[-1]["kind"] == "teacher"
    assert facts[-1]["is_best"] is None
    worst = next(row for row in facts if row["method"] == "alone")
    assert worst["is_best"] is False


def test_runs_of_the_same_method_are_compared_within_each_run(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", (0.9, 0.9, 0.9)), write_run(tmp_path / "b", (0.8, 0.9, 0.8))]
    facts = compare(runs).to_json()["settings"][0]["results"]
    means = [row["differences"]["alone"]["mean"] for row in facts if row["method"] == "kd"]
    assert means == [pytest.approx(0.1), pytest.approx(0.1 / 3)]


def test_statistics_over_settings_use_the_largest_complete_part(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, (0.9, 0.92, 0.91), data=name) for name in ("one", "two", "three")
    ]
    runs.append(write_run(tmp_path / "four", objective="fitnet", data="four"))
    runs.append(write_run(tmp_path / "again", (0.7, 0.7, 0.7), data="one"))
    overall = compare(runs[:4]).to_json()["overall"]
    assert overall["methods"] == ["kd", "pseudo_labels", "label_smoothing", "alone"]
    assert overall["mean_ranks"] == [1, 2, 3, 4]
    assert len(overall["blocks"]) == 3
    assert overall["notes"] == ["1 of 4 settings lack one of these methods."]
    assert overall["probability_of_improvement"]["alone"]["kd"]["probability"] == 1
    assert overall["gains"]["alone"]["kd"]["mean"] == pytest.approx(0.11)
    ambiguous = compare(runs).to_json()["overall"]
    assert any("kd has 2 results on one" in note for note in ambiguous["notes"])


def test_one_setting_has_no_statistics_over_settings(tmp_path: Path) -> None:
    overall = compare([write_run(tmp_path / "run")]).overall
    assert isinstance(overall, str)
    assert "two or more settings" in overall


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"RUN: .*nowhere does not exist\. Expected the folder"):
        compare([run, tmp_path / "nowhere"])
    with pytest.raises(ValueError, match=r"empty is not the folder of a run or a search"):
        compare([empty])
    with pytest.raises(ValueError, match=r"recipe.yaml is a file"):
        compare([run / "recipe.yaml"])
    (run / "result.json").rename(run / "old.json")
    with pytest.raises(ValueError, match=r"run without a result.*instil run --resume"):
        compare([run])
    (run / "study.json").write_text("{}")
    with pytest.raises(ValueError, match=r"search without a result.*instil search --resume"):
        compare([run])


def test_results_of_another_format_or_status_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"status": "interrupted"}))
    with pytest.raises(ValueError, match="Expected the status complete, got interrupted"):
        compare([run])
    del result["headline"]
    (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r"another format.*got none for headline"):
        compare([run])
    folder = write_search(tmp_path / "search", {"kd": [0.9, 0.9]})
    (folder / "search.json").write_text("{}")
    with pytest.raises(ValueError, match=r"search.json has another format"):
        compare([folder])
    shutil.copy(run / "metrics.jsonl", folder / "search.json")
    with pytest.raises(ValueError, match=r"search.json cannot be read"):
        compare([folder])


def test_results_of_several_versions_need_permission(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", version="0.2.0", objective="dkd")]
    with pytest.raises(ValueError, match=r"different versions.*0\.1\.0 .*0\.2\.0 .*--any-version"):
        compare(runs)
    assert len(compare(runs, any_version=True).groups) == 1
    search = write_search(tmp_path / "c", {"kd": (0.9, 0.8)}, {"version": "0.3.0"})
    with pytest.raises(ValueError, match=r"different versions.*0\.1\.0 .*0\.3\.0 .*--any-version"):
        compare([runs[0], search])


def test_the_command_prints_a_table_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(write_run(tmp_path / "a")), str(write_run(tmp_path / "b", objective="dkd"))]
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *runs, "--out", str(page)])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "classification, digits, test accuracy" in text
    assert f"Page: {page}" in text.replace("\n", "")
    assert page.is_file()
    with pytest.raises(SystemExit):
        main(["compare", *runs, "--json"])
    facts = json.loads(capsys.readouterr().out)
    methods = {row["method"] for row in facts["settings"][0]["results"]}
    assert methods == {"kd", "dkd", "teacher", *LEVELS}
    with pytest.raises(SystemExit) as refused:
        main(["compare", str(tmp_path)])
    assert refused.value.code == 2
    assert capsys.readouterr().err.startswith("Error: RUN:")
