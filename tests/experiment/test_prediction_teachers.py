"""Predictions of another program as a teacher: in a run, in a store, and for other samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from instil.data.keys import sample_keys, with_unique_indices
from instil.data.sources.digits import digits
from instil.experiment.experiment import Experiment
from instil.plan.doctor import doctor
from instil.plan.recording import record_outputs
from instil.recipe import to_yaml
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe
from tests.cli.test_cli import called
from tests.experiment.small import numbers, recipe, run_of

CHANGES = ("seeds=[0]", "baselines=[alone, pseudo_labels]")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predicted(parts: tuple[str, ...] = ("train", "validation", "test")) -> dict[str, Any]:
    """Return predictions of a nearly perfect classifier for the digits, in another order."""
    splits = digits()
    keys = sample_keys(splits)
    names: list[str] = []
    labels: list[int] = []
    for part in parts:
        names += keys[part]
        labels += getattr(splits, part).label.tolist()
    order = np.random.default_rng(0).permutation(len(names))
    probabilities = np.full((len(names), 10), 0.01, dtype=np.float32)
    probabilities[np.arange(len(names)), labels] = 0.91
    return {"key": np.array(names)[order], "probabilities": probabilities[order]}


def of_file(name: str = "teacher.npz", *changes: str, **sections: Any) -> Recipe:
    return recipe(*CHANGES, *changes, teacher={"model": f"predictions:{name}"}, **sections)


def test_keys_are_rows_of_the_source_and_never_twice() -> None:
    splits = digits()
    keys = sample_keys(splits)
    every_key = [key for of_part in keys.values() for key in of_part]
    assert sorted(every_key, key=int) == [str(row) for row in range(1797)]
    unique = with_unique_indices(splits)
    indices = torch.cat([unique.train.index, unique.validation.index, unique.test.index])
    assert torch.equal(indices, torch.arange(1797))
    assert splits.test.index[0] == 0


def test_a_file_teaches_and_labels(folder: Path) -> None:
    np.savez("teacher.npz", **predicted())
    few_labels = ("data.num_labeled=20", "train.epochs=15", "student.options.width=16")
    result = run_of(of_file("teacher.npz", *few_labels), folder / "run")
    assert result["teacher"]["accuracy"]["mean"] == 1.0
    assert result["distilled"]["accuracy"]["mean"] > result["alone"]["accuracy"]["mean"]
    assert "pseudo_labels" in result
    assert "teacher" not in result["cost"]
    findings = doctor(of_file())
    assert findings["run"]["teachers"] == 0
    assert findings["stages"][0]["match"]["teacher_accuracy"] == 1.0


def test_parquet_gives_the_same_numbers(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    content = predicted()
    np.savez("teacher.npz", **content)
    rows = {"key": content["key"].tolist(), "probabilities": content["probabilities"].tolist()}
    parquet.write_table(pyarrow.table(rows), "teacher.parquet")
    one = run_of(of_file(), folder / "npz")
    other = run_of(of_file("teacher.parquet"), folder / "parquet")
    assert numbers(other) == numbers(one)


def test_without_evaluation_samples_the_teacher_has_no_scores(folder: Path) -> None:
    np.savez("teacher.npz", **predicted(("train",)))
    result = run_of(of_file(), folder / "run")
    assert "teacher" not in result
    assert "distilled" in result


def test_a_recording_from_a_file_needs_the_file_no_more(folder: Path) -> None:
    np.savez("teacher.npz", **predicted())
    live = run_of(of_file(), folder / "live")
    stored = of_file("teacher.npz", "store.path=store")
    record_outputs(stored, Console(quiet=True))
    (folder / "teacher.npz").rename(folder / "elsewhere.npz")
    assert numbers(run_of(stored, folder / "run")) == numbers(live)
    with pytest.raises(RecipeError, match=r"store.path: .*teacher"):
        run_of(of_file("other.npz", "store.path=store"), folder / "other")


def test_record_from_a_file_prints_the_recipe_that_learns_from_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("teacher.npz", **predicted())
    (folder / "my.yaml").write_text(to_yaml(recipe(*CHANGES)))
    words = ("my.yaml", "store.path=store", "--from", "teacher.npz")
    code, out, _ = called(capsys, "record", *words)
    assert code == 0
    assert out.strip().endswith("store.path=store teacher=predictions:teacher.npz")
    result = run_of(of_file("teacher.npz", "store.path=store"), folder / "run")
    assert result["teacher"]["accuracy"]["mean"] == 1.0


def test_another_file_is_another_teacher(folder: Path) -> None:
    content = predicted()
    np.savez("teacher.npz", **content)
    stored = of_file("teacher.npz", "store.path=store")
    record_outputs(stored, Console(quiet=True))
    np.savez("teacher.npz", **content | {"probabilities": content["probabilities"][::-1]})
    with pytest.raises(RecipeError, match=r"store.path: .*code"):
        run_of(stored, folder / "run")


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    is_kept = ~np.isin(content["key"], keys)
    return {name: array[is_kept] for name, array in content.items()}


def test_predictions_for_other_samples_name_the_keys(folder: Path) -> None:
    splits = digits()
    train, validation = (sample_keys(splits)[part] for part in ("train", "validation"))
    np.savez("teacher.npz", **without(predicted(), *train[:2]))
    with pytest.raises(
        RecipeError, match=rf"no predictions for 2 of \d+ train samples: {train[0]}, {train[1]}\."
    ):
        doctor(of_file())
    np.savez("teacher.npz", **without(predicted(), validation[5]))
    with pytest.raises(RecipeError, match=rf"1 of \d+ validation samples: {validation[5]}\."):
        doctor(of_file())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": np.zeros((3, 2))}, "expected one of the arrays logits and probabilities, got"),
        ({"logits": np.zeros((3, 2, 2))}, r"expected numbers \(N, C\), got float64 of shape"),
        ({"logits": np.full((3, 2), np.nan)}, "expected finite numbers"),
        ({"probabilities": np.ones((3, 2))}, r"row 0 has the sum 2\. Expected"),
        ({"logits": np.zeros((3, 2)), "key": np.arange(2)}, "expected one key per row"),
        ({"logits": np.zeros((2, 2)), "key": np.zeros(2)}, "has several predictions"),
        ({"logits": np.array([None, "x"])}, "Python objects"),
    ],
)
def test_files_in_another_format(arrays: dict[str, Any], message: str, folder: Path) -> None:
    np.savez("teacher.npz", **arrays)
    with pytest.raises(RecipeError, match=message):
        doctor(of_file())


def test_missing_files_options_and_classes(folder: Path) -> None:
    np.savez("teacher.npz", **predicted())
    with pytest.raises(RecipeError, match=r"no such file: .*techer.npz. Did you mean teacher.npz"):
        doctor(of_file("techer.npz"))
    options = {"model": "predictions:teacher.npz", "options": {"key": 3}}
    with pytest.raises(RecipeError, match=r"teacher.options.key: .* has no options"):
        doctor(recipe(*CHANGES, teacher=options))
    np.savez("teacher.npz", **predicted() | {"probabilities": np.full((1797, 5), 0.2)})
    with pytest.raises(RecipeError, match=r"teacher: .*5.*10"):
        doctor(of_file())
    with pytest.raises(RecipeError, match=r"data.augment.mixup: the teacher predictions:teacher"):
        doctor(of_file("teacher.npz", "data.augment.mixup=true", objectives={"kd": {}}))


def test_pictures_have_their_paths_as_keys(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(8):
            image.new("L", (8, 8), i).save(tmp_path / name / f"{i}.png")
    section = {"name": "folder", "path": str(tmp_path)}
    keys = sample_keys(Experiment.from_recipe(recipe(data=section)).splits)
    every_key = {key for of_part in keys.values() for key in of_part}
    assert every_key == {f"{name}/{i}.png" for name in ("cat", "dog") for i in range(8)}
