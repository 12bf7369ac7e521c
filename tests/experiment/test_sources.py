"""Data sources of a recipe: those of the package, and functions of the user."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instil.catalogue import plugins
from instil.catalogue.user_code import UntrustedCode
from instil.cli import main
from instil.experiment.experiment import Experiment
from instil.experiment.source_functions import source_names
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


def test_a_path_without_a_source_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "a.npz").touch()
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    for name, source in (
        ("pictures", "folder:pictures"),
        ("a.npz", "npz:a.npz"),
        ("a.csv", "table:a.csv"),
    ):
        with pytest.raises(RecipeError, match=rf"data source '{name}'.*Did you mean {source}\?"):
            Experiment.from_recipe(recipe_of(tmp_path, name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_data:biuld", "my_data has no function 'biuld'. Did you mean build"),
        ("my_data:wrong", "data: my_data:wrong returned int. Expected instil.data.splits.Splits"),
        ("my_data:fails", "data: my_data:fails failed: KeyError: 'column'"),
        ("os:listdir", "unknown data source 'os'; os.py is neither in"),
        ("images", "unknown data source 'images'"),
        ("aligned", "unknown data source 'aligned'"),
        ("splits", "unknown data source 'splits'"),
        ("foldr:x", "unknown data source 'foldr'"),
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


SOURCE_MODULE = '''
from typing import Annotated

import torch
from typing_extensions import Doc

from instil.data.images import ArrayData
from instil.data.splits import Splits, splits


def stripes(count: Annotated[int, Doc("number of images")] = 60) -> Splits:
    """Striped images of two classes."""
    label = torch.arange(count) % 2
    image = torch.rand(count, 1, 8, 8) * 0.5
    image[label == 1, :, ::2] += 0.5
    return splits({"train": ArrayData(image, label, ["plain", "striped"])}, 0.2, 0.2)


def helper() -> int:
    return 1
'''


@pytest.fixture
def installed_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Entry point of an installed package that has a data source."""
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "stripes_package.py").write_text(SOURCE_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    entry = EntryPoint("stripes", "stripes_package:stripes", plugins.GROUP)
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [entry] if group == plugins.GROUP else []
    )
    plugins.installed.cache_clear()
    yield
    plugins.installed.cache_clear()


@pytest.mark.usefixtures("installed_source")
def test_a_source_of_an_installed_package_is_available_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit):
        main(["methods", "--kind", "data"])
    assert re.search("stripes +Striped images of two classes", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main(["methods", "stripes", "--json"])
    (described,) = json.loads(capsys.readouterr().out)
    assert described["defined"] == "stripes_package.stripes"
    assert described["options"][0]["description"] == "number of images"
    data = {"name": "stripes", "count": 80}
    recipe = recipe_of(tmp_path, data, teacher="mlp", train={"epochs": 60})
    assert run_of(recipe, tmp_path / "run")["distilled"]["accuracy"]["mean"] > 0.8
    # An installed package is trusted, as for its other methods.
    assert len(Experiment.from_recipe(recipe, trust_code=False).splits.test) == 16
    with pytest.raises(RecipeError, match=r"data\.cuont: unknown option"):
        Experiment.from_recipe(recipe_of(tmp_path, {"name": "stripes", "cuont": 3}))
    with pytest.raises(
        RecipeError, match=r"unknown data source 'stripe'\. Expected .*Did you mean stripes"
    ):
        Experiment.from_recipe(recipe_of(tmp_path, "stripe"))


def test_a_source_of_an_imported_module_is_available_by_name(tmp_path: Path) -> None:
    (tmp_path / "my_sources.py").write_text(SOURCE_MODULE)
    recipe = recipe_of(tmp_path, {"name": "stripes", "count": 40}, imports=["my_sources"])
    assert Experiment.from_recipe(recipe).splits.classes == ("plain", "striped")
    assert "helper" not in source_names()
    (tmp_path / "other_sources.py").write_text(SOURCE_MODULE.replace("def stripes", "def digits"))
    message = "other_sources defines the data source 'digits', .* rename the function"
    with pytest.raises(RecipeError, match=message):
        recipe_of(tmp_path, "digits", imports=["other_sources"])


def test_a_function_of_an_entry_point_must_return_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helper_package.py").write_text(SOURCE_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint("helper", "helper_package:helper", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    plugins.installed.cache_clear()
    with pytest.warns(UserWarning, match="Expected the return annotation Splits"):
        assert "helper" not in source_names()
    plugins.installed.cache_clear()


def test_a_task_for_other_labels_is_one_error(tmp_path: Path) -> None:
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
    assert "Did you mean folder" in capsys.readouterr().err


def test_every_option_of_sources_for_own_data_is_documented() -> None:
    from instil import catalogue

    assert {"folder", "npz", "torchvision", "huggingface"} <= set(source_names())
    for name in ("folder", "npz"):
        source = catalogue.describe("data", name)
        assert all(option["description"] for option in source["options"]), name
