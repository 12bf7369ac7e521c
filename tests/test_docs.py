"""What README, CONTRIBUTING and docs say is so: every snippet runs, every command exists, what is generated is up to date."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from instil import catalogue
from instil.catalogue.signatures import parameters
from instil.networks.cnn import cnn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
OPENING = "# instil\n\n```bash\npip install '.[export]' && instil run\n```\n```bash\npip install '.[test]' && pytest\n```\n"
SHORT = ["train.epochs=1", "seeds=[0]", "baselines=[]"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def command(*words: str, folder: Path) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", "from instil.cli import main; main()", *words],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs"))  # as when it is run as a script
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the README's snippets take for granted, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 10
    return {
        "teacher": cnn(10, width=8),
        "student": cnn(10, width=4),
        "loader": DataLoader(TensorDataset(images, labels), batch_size=20),
        "images": images,
        "student_logits": torch.randn(6, 10, requires_grad=True),
        "teacher_logits": torch.randn(6, 10),
        "target": torch.arange(6),
        "checkpoint": tmp_path / "run.pt",
    }


def test_the_readme_opens_with_two_commands() -> None:
    assert README.startswith(OPENING)


def test_what_is_generated_is_up_to_date(generator: ModuleType) -> None:
    pages = generator.pages()
    old = [
        name
        for name, text in pages.items()
        if not (ROOT / "docs" / name).exists() or (ROOT / "docs" / name).read_text() != text
    ]
    assert old == [], "run: python docs/generate.py"
    assert {f"methods/{path.name}" for path in (ROOT / "docs" / "methods").glob("*.md")} <= set(
        pages
    ), "run: python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = [
        link
        for link in re.findall(r"\]\(([^)#]+)", page.read_text())
        if not link.startswith("http")
    ]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_the_machine_it_was_written_on(page: Path) -> None:
    assert re.findall(r"/work\b|\.\./shared|/tmp/", page.read_text()) == []


def test_signals_name_methods_and_options_that_there_are() -> None:
    """Each ``method: {option, ...}`` in the tables."""
    text = (ROOT / "docs" / "signals.md").read_text()
    named = re.findall(r"`(\w+): \{([^}`]*)\}`", text)
    assert len(named) > 5
    for method, options in named:
        assert set(re.findall(r"(?:^|, )(\w+)", options)) <= set(
            parameters(catalogue.find("objective", method))
        ), (method, options)


def test_the_readme_table_has_the_commands_there_are() -> None:
    from typer.main import get_command

    from instil.cli import app

    told = re.findall(r"^\| `instil (\w+)", README, re.MULTILINE)
    assert sorted(told) == sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_readme_commands(given: dict[str, Any], tmp_path: Path) -> None:
    """The first command at a small setting, then the others on its run folder; the run folder has the files that the README lists."""
    command("run", *SHORT, "teacher_train.epochs=1", "--out", "out", folder=tmp_path)
    table = README.partition("## The run folder")[2].partition("##")[0]
    named = re.findall(
        r"`([\w.]+/?)`",
        "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|")),
    )
    assert len(named) >= 7
    assert [name for name in named if not (tmp_path / "out" / name).exists()] == []
    command("export", "out", "--int8", folder=tmp_path)
    command("report", "out", folder=tmp_path)
    command("run", "out/recipe.yaml", "--out", "again", folder=tmp_path)
    one, other = (
        json.loads((tmp_path / run / "result.json").read_text())["distilled"]
        for run in ("out", "again")
    )
    assert one == other
    assert "jensen_shannon" not in command("methods", folder=tmp_path)


@pytest.mark.slow
def test_a_recipe_takes_the_example_method(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "own_method.py").write_text((ROOT / "examples" / "own_method.py").read_text())
    (tmp_path / "my.yaml").write_text(
        "imports: [own_method]\ndata: {name: digits, num_labeled: 100}\nteacher: cnn\nstudent: mlp\n"
        "objectives: {cross_entropy: {}, jensen_shannon: {temperature: 2}}\n"
    )
    command("run", "my.yaml", *SHORT, "export=false", "--out", "out", folder=tmp_path)
    assert "jensen_shannon" in (tmp_path / "out" / "metrics.jsonl").read_text()
