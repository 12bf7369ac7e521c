"""Recipes of standard protocols: each trains on tiny data of the same form as the real data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.io import wavfile

from instil import recipe as recipes
from instil.plan.run import run
from instil.recipe.errors import RecipeError
from instil.recipe.packaged import benchmark_recipes, find_packaged, packaged_recipes

SHORT = ["seeds=[0]", "export=false", "data.workers=0", "data.batch_size=4", "data.validation=0.25"]
BERT = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 128,
}
HUBERT = {
    "model_type": "hubert",
    "hidden_size": 16,
    "num_hidden_layers": 12,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": [8, 8],
    "conv_stride": [5, 4],
    "conv_kernel": [10, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "layerdrop": 0.0,
}


def pictures(folder: Path, names: list[str], size: tuple[int, int], mask: bool = False) -> None:
    """Write random pictures, or random masks of 19 classes with void pixels."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in names:
        if mask:
            array = generator.integers(0, 20, size).astype(np.uint8)
            array[array == 19] = 255
        else:
            array = generator.integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(array).save(folder / f"{name}.png")


def cifar100(name: str) -> list[str]:
    """Arrays with the shape and the number of classes of CIFAR-100."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (16, 32, 32, 3)).astype(np.uint8)
    classes = np.array([f"class {index}" for index in range(100)])
    label = np.arange(16) * 6
    np.savez(
        "cifar.npz", image=image, label=label, split=np.arange(16) % 4 // 3 * 2, classes=classes
    )
    networks = ["teacher.options.depth=1", "student.options={width: 8, depth: 1}"]
    short = ["objectives.crd.negatives=8"] if name == "crd" else []
    source = "data={name: npz, path: cifar.npz, augment: {crop: 4, flip: true}}"
    return [source, *networks, "train.epochs=1", *short]


def imagenet(_: str) -> list[str]:
    """Folders of pictures by class and split."""
    for split in ("train", "test"):
        for index in range(4):
            pictures(Path("imagenet", split, f"n{index:08}"), ["a", "b", "c"], (40, 48))
    return ["data.size=32", "data.augment.crop=4", "teacher.pretrained=false", "train.epochs=1"]


def cityscapes(_: str) -> list[str]:
    """Pictures with masks of train ids."""
    names = [f"aachen_{index:06}" for index in range(8)]
    for split in ("train", "test"):
        pictures(Path("cityscapes", split, "images"), names, (64, 128))
        pictures(Path("cityscapes", split, "masks"), names, (64, 128), mask=True)
    networks = ["teacher.model=torchvision:lraspp_mobilenet_v3_large"]
    networks += ["student.model=torchvision:lraspp_mobilenet_v3_large"]
    return ["data.size=[32, 64]", *networks, "train.steps=1", "teacher_train.steps=1"]


def glue(name: str) -> list[str]:
    """Tab-separated files with the columns of the tasks."""
    header = {"bert_base_kd": "sentence1\tsentence2\tgold_label"}.get(
        name, "Quality\t#1 String\t#2 String"
    )
    labels = {"bert_base_kd": ("entailment", "neutral", "contradiction")}.get(name, ("0", "1"))
    folder = Path("glue", "MNLI" if name == "bert_base_kd" else "MRPC")
    folder.mkdir(parents=True)
    rows = [header]
    for index in range(12):
        texts = [f"a text of {index}", "another one"]
        label = labels[index % len(labels)]
        rows.append("\t".join([*texts, label] if name == "bert_base_kd" else [label, *texts]))
    for file in ("train.tsv", "dev.tsv", "dev_matched.tsv"):
        (folder / file).write_text("\n".join(rows) + "\n")
    networks = []
    config = BERT | ({"output_attentions": True} if name == "tinybert" else {})
    for side in ("teacher", "student"):
        networks += [f"{side}.options.config={json.dumps(config)}", f"{side}.options.path=null"]
        networks += [f"{side}.pretrained=false"]
    short = ["train.epochs=1", "teacher_train.epochs=1", "data.tokenizer=bytes", "data.length=32"]
    if name == "tinybert":
        return [*networks, *short, "stages.0.train.epochs=1"]
    return [*networks, *short, "train.schedule.total_iters=1"]


def librispeech(_: str) -> list[str]:
    """Manifests of short recordings with a text each."""
    generator = np.random.default_rng(0)
    folder = Path("librispeech")
    folder.mkdir()
    lines = []
    for index in range(8):
        wavfile.write(
            folder / f"{index}.wav", 16000, generator.normal(0, 0.1, 4000).astype("float32")
        )
        lines.append(json.dumps({"audio": f"{index}.wav", "text": "AB A"[index % 3 :]}))
    for split in ("train", "dev-clean", "test-clean"):
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    teacher = [f"teacher.options={json.dumps({'config': HUBERT})}", "teacher.pretrained=false"]
    lengths = ["train.steps=1", "teacher_train.steps=1", "stages.1.train.steps=1"]
    return [*teacher, *lengths, "train.schedule.total_iters=1"]


def coco(_: str) -> list[str]:
    """Pictures with boxes in the format of COCO 2017, for two splits."""
    folder = Path("coco", "annotations")
    folder.mkdir(parents=True)
    names = ["person", "bicycle"]
    for split in ("train2017", "val2017"):
        pictures(Path("coco", split), [f"{index:012}" for index in range(8)], (48, 64))
        images = []
        boxes = []
        for index in range(8):
            images.append({"id": index, "file_name": f"{index:012}.png", "width": 64, "height": 48})
            box = {"id": index, "image_id": index, "category_id": 1 + index % 2, "iscrowd": 0}
            boxes.append(box | {"bbox": [4 + index, 4, 30, 24]})
        categories = [{"id": 1 + index, "name": name} for index, name in enumerate(names)]
        facts = {"images": images, "annotations": boxes, "categories": categories}
        (folder / f"instances_{split}.json").write_text(json.dumps(facts))
    networks = [f"{side}.options.backbone=resnet18" for side in ("teacher", "student")]
    networks += [f"{side}.options.pyramid_channels=32" for side in ("teacher", "student")]
    return ["data.size=[64, 64]", *networks, "train.epochs=1"]


FORMS: dict[str, Callable[[str], list[str]]] = {
    "cifar100": cifar100,
    "imagenet": imagenet,
    "cityscapes": cityscapes,
    "glue": glue,
    "librispeech": librispeech,
    "coco": coco,
}
"""Benchmark -> function that writes tiny data of its form, and returns the overrides."""


@pytest.mark.slow
@pytest.mark.parametrize("name", benchmark_recipes())
def test_a_benchmark_trains_on_data_of_its_form(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    for package in ("torchvision", "timm", "transformers"):
        pytest.importorskip(package)
    _, benchmark, recipe_name = name.split("/")
    changes = FORMS[benchmark](recipe_name)
    folder = run(recipes.load(name, [*changes, *SHORT]), Path("run"), None, Console(quiet=True))
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "complete"
    assert {"teacher", "alone", "distilled"} <= set(result)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [value for row in rows for value in row["losses"].values()]
    assert losses
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize("name", benchmark_recipes())
def test_a_benchmark_loads_by_its_full_name(name: str) -> None:
    path = benchmark_recipes()[name]
    assert path.read_text().startswith("# ")
    recipe = recipes.load(name)
    assert recipe.name == path.stem
    assert recipe.seeds == [0, 1, 2]
    assert recipe.baselines == ["alone"]
    assert find_packaged(f"{name}.yaml") == path


def test_benchmarks_are_not_among_the_recipes_that_tests_and_measurements_run() -> None:
    assert len(benchmark_recipes()) >= 10
    assert not set(benchmark_recipes()) & set(packaged_recipes())
    # The short name of a benchmark is that of another recipe, or none.
    assert find_packaged("kd") == packaged_recipes()["classification/kd"]
    with pytest.raises(RecipeError, match="No recipe named 'resnet18_kd'"):
        find_packaged("resnet18_kd")
