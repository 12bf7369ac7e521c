"""Data sources of a recipe: those of the package, and functions of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instil.catalogue.user_code import UntrustedCode
from instil.cli import main
from instil.experiment.experiment import Experiment
from instil.experiment.sources import source_names
from instil.recipe import RecipeError, build
from instil.recipe.sections import Recipe
from tests.experiment.small import run_of

MY_DATA = """
from pathlib import Path
import torch
from instil.data.images import ArrayData
from instil.data.masks import masked_arrays
from instil.data.splits import Splits, splits
from instil.data.targets import RealImages


def build(count: int = 60, base: Path = Path(), task_name: str = "") -> Splits:
    assert base.is_dir()
    torch.manual_seed(0)
    images = ArrayData(torch.rand(count, 1, 8, 8), torch.arange(count) % 2, ["cat", "dog"])
    if task_name == "segmentation":
        images = masked_arrays(images, torch.randint(2, (count, 8, 8)), None)
    if task_name == "regression":
        images = RealImages(images, torch.randn(count, 2), ["x", "y"])
    return splits({"train": images}, 0.2, 0.2)


def wrong() -> int:
    return 3


def fails():
    raise KeyError("column")
"""


def recipe_of(folder: Path, data: Any, task: str = "classification", **sections: Any) -> Recipe:
    whole: dict[str, Any] = {
        "folder": str(folder),
        "task": task,
        "data": data,
        "student": "mlp",
        "objectives": {"cross_entropy": None},
        "baselines": [],
        "seeds": [0],
        "export": False,
        "train": {"epochs": 1},
    }
    return build(whole | sections)


@pytest.mark.parametrize("by_import", [False, True])
def test_a_function_of_the_user_is_a_source_of_every_task(tmp_path: Path, by_import: bool) -> None:
    (tmp_path / "my_data.py").write_text(MY_DATA)
    options: dict[str, Any] = {"imports": ["my_data"]} if by_import else {}
    data = {"name": "my_data:build", "count": 40}
    experiment = Experiment.from_recipe(recipe_of(tmp_path, data, **options))
    assert len(experiment.splits.train) + len(experiment.splits.validation) == 32
    segmented = Experiment.from_recipe(
        recipe_of(tmp_path, data, "segmentation", student="segmenter")
    )
    assert segmented.splits.train.__getitems__([0])["label"].shape == (1, 8, 8)
    real = Experiment.from_recipe(
        recipe_of(tmp_path, data, "regression", objectives={"mean_squared_error": None})
    )
    assert real.splits.classes == ("x", "y")


def test_a_run_learns_masks_from_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (40, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", image=image, label=(image > 128).astype(int))
    one = recipe_of(tmp_path, "npz:a.npz", "segmentation", student="segmenter", teacher="segmenter")
    assert 0 < run_of(one, tmp_path / "run")["distilled"]["miou"]["mean"] <= 1


def test_a_run_learns_real_targets_from_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    image = np.random.default_rng(0).random((40, 8, 8), np.float32)
    np.savez(tmp_path / "a.npz", image=image, label=image.mean((1, 2)))
    one = recipe_of(tmp_path, "npz:a.npz", "regression", objectives={"mean_squared_error": None})
    assert run_of(one, tmp_path / "run")["distilled"]["mae"]["mean"] > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_data:biuld", "my_data has no function 'biuld'; closest: build"),
        ("my_data:wrong", "data: my_data:wrong returned int. Expected instil.data.splits.Splits"),
        ("my_data:fails", "data: my_data:fails failed: KeyError: 'column'"),
        ("os:listdir", "there is no data source 'os', and no module os.py in"),
        ("images", "there is no data source 'images'"),
        ("aligned", "there is no data source 'aligned'"),
        ("splits", "there is no data source 'splits'"),
        ("foldr:x", "there is no data source 'foldr'"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "my_data.py").write_text(MY_DATA)
    with pytest.raises(RecipeError) as caught:
        Experiment.from_recipe(recipe_of(tmp_path, name))
    assert message in str(caught.value)
    assert "samples" not in str(caught.value)


def test_a_function_of_the_user_is_not_called_without_trust(tmp_path: Path) -> None:
    (tmp_path / "my_data.py").write_text("raise SystemExit")
    with pytest.raises(UntrustedCode, match=r"data\.name: 'my_data:build' is code of"):
        Experiment.from_recipe(recipe_of(tmp_path, "my_data:build"), trust_code=False)


def test_an_unknown_option_of_the_users_function_is_named(tmp_path: Path) -> None:
    (tmp_path / "my_data.py").write_text(MY_DATA)
    with pytest.raises(RecipeError, match=r"data\.cuont: unknown option"):
        Experiment.from_recipe(recipe_of(tmp_path, {"name": "my_data:build", "cuont": 3}))


def test_a_task_for_other_labels_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        Experiment.from_recipe(recipe_of(tmp_path, "digits", "regression"))
    message = str(caught.value)
    assert "regression needs labels of the kind real, but the labels of 'digits' are" in message
    assert "task.kind" not in message


def test_the_command_line_lists_the_options_of_a_source(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, expected in (
        (["methods", "folder"], "unreadable files"),
        (["methods", "--kind", "data"], "digits"),
        (["methods", "npz", "--json"], '"validation"'),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert not ended.value.code
        assert expected in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as ended:
        main(["methods", "foldr", "--kind", "data"])
    assert ended.value.code == 2
    assert "closest: folder" in capsys.readouterr().err


def test_every_option_of_sources_for_own_data_is_documented() -> None:
    from instil.experiment.source_docs import describe_source

    assert {"folder", "npz", "torchvision", "huggingface"} <= set(source_names())
    for name in ("folder", "npz"):
        source = describe_source(name)
        assert all(option["description"] for option in source["options"]), name
