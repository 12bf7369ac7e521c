"""Every objective trains on the smallest recipe of a task on its card: its loss falls, and the student hears of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from instil import catalogue
from instil import recipe as recipes
from instil.catalogue.signatures import parameters
from instil.data.sources.digits import digits
from instil.plan.run import run

ROOT = Path(__file__).parents[1]
OTHER_TASKS = (
    "segmentation",
    "text_classification",
    "node_classification",
    "image_text",
    "regression",
    "detection",
    "language",
    "sentence_embedding",
)
RECIPES = {
    "classification": "digits",
    **{task: str(ROOT / f"src/instil/recipes/{task}/{task}.yaml") for task in OTHER_TASKS},
}
MULTI_LABEL = {"multi_label_kd"}
SCHEMES = {
    "sskd": "scheme=views",
    "simkd": "scheme=reused_classifier",
    "norm": "scheme=folded_transform",
}
"""Objectives that need another scheme than the offline one."""
ALONE = ["teacher=null", "objectives.cross_entropy=null", "objectives.kd=null"]
CHANGES = {
    "dino": ["scheme={type: dino, momentum: 0.9}", *ALONE],
    "ddgsd": ["data.sampler=two_views", "data.augment.crop=2"],
}
"""What else of the recipe an objective needs to be changed."""
TEACHERS = {"ebkd", "camkd", "dgkd", "amtml_kd"}
"""Objectives of several teachers, which get three of unlike widths in the place of the recipe's."""
SEVERAL = "teacher=[{model: cnn, options: {width: 16}}, {model: cnn, options: {width: 12}}, {model: cnn, options: {width: 8}}]"
WEIGHTS = {"clip_feature": 2000, "lsp": 100}
"""As published: at weight 1 these are too small beside the label loss to be felt."""
LENGTH = {
    "classification": 4,
    "segmentation": 3,
    "text_classification": 4,
    "node_classification": 10,
    "image_text": 4,
    "regression": 4,
    "detection": 4,
    "language": 3,
    "sentence_embedding": 3,
}
ON_THEIR_OWN = {"bake", "cs_kd", "ctkd", "ddgsd", "multilevel_ot", "sad", "tf_kd", "ttm", "wttm"}
"""Losses that begin near zero with an untrained student, or whose learned part pulls the other way: beside a label loss they rise."""


def methods() -> list[tuple[str, str]]:
    """Each objective with the first task on its card that has a recipe."""
    found = []
    for name in catalogue.files("objective"):
        tasks = catalogue.find("objective", name).card.tasks
        task = next((task for task in tasks if task in RECIPES), None)
        assert task, f"{name}: none of {', '.join(tasks)} has a recipe"
        found.append((name, task))
    return found


def smaller(name: str) -> list[str]:
    """Queues of many thousand rows are shrunk, and relation heads fit the width of a tiny transformer, which changes no formula."""
    defaults = {
        option: p.default for option, p in parameters(catalogue.find("objective", name)).items()
    }
    heads = ["heads: 4"] if "heads" in defaults else []
    weight = [f"weight: {WEIGHTS[name]}"] if name in WEIGHTS else []
    return [
        *heads,
        *weight,
        *(
            f"{option}: 512"
            for option, value in defaults.items()
            if isinstance(value, int) and value > 1000
        ),
    ]


def several_labels(folder: Path) -> Path:
    """Digits with two yes-or-no labels each: even, and below five."""
    train = digits().train
    label = torch.stack([train.label % 2 == 0, train.label < 5], 1).numpy()
    image = torch.cat([train.images(torch.arange(len(train)))]).numpy()
    np.savez(folder / "several.npz", image=image, label=label)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of trained teachers, so that each is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), methods())
def test_trains(
    name: str, task: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(cache))
    epochs = LENGTH[task]
    if name in MULTI_LABEL:
        monkeypatch.chdir(several_labels(tmp_path))
    short = [
        f"train.epochs={epochs}",
        "teacher_train.epochs=5",
        "seeds=[0]",
        "baselines=[]",
        "export=false",
    ]
    chosen = [
        f"objectives.{name}={{{', '.join(smaller(name))}}}",
        *([SCHEMES[name]] if name in SCHEMES else []),
    ]
    chosen += CHANGES.get(name, [])
    if name in TEACHERS:
        chosen.append(SEVERAL)
    if name in ON_THEIR_OWN:
        chosen += ["objectives.cross_entropy=null", "objectives.kd=null"]
    if name in MULTI_LABEL:
        chosen += [
            "data={name: npz:several.npz}",
            "task.kind=multi",
            "objectives.kd.multi_label=true",
        ]
    folder = run(
        recipes.load(RECIPES[task], [*chosen, *short]), tmp_path / "run", None, Console(quiet=True)
    )
    assert json.loads((folder / "result.json").read_text())["status"] == "complete"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [
        value
        for r in records
        if r["arm"] == "distilled"
        for key, value in r["losses"].items()
        if key == f"student/{name}"
    ]
    assert len(losses) >= 2
    if (
        name in ("dlb", "dino")
    ):  # few samples come twice in a row from an ordinary loader; the teacher of dino moves away as the student learns
        return
    half = len(losses) // 2
    assert sum(losses[-half:]) < sum(losses[:half]), f"the loss does not fall: {losses}"
