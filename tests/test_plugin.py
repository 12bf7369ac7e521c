"""A separate package adds modalities: it is installed, and its recipes run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"
RECIPES = PLUGIN / "src" / "instil_example_plugin" / "recipes"
SMALL = {
    "keypad": ("data.train=120", "data.validation=40", "data.test=40", "data.num_labeled=40"),
    "spirals": ("data.rows=600", "train.epochs=20"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder into which pip has installed the package."""
    folder = tmp_path_factory.mktemp("site")
    # A build leaves files beside the sources, which must stay as they are.
    copy = folder / "source"
    shutil.copytree(PLUGIN, copy)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--target", str(folder / "site"), str(copy)], check=True)
    return folder / "site"


def instil(site: Path, folder: Path, *words: str) -> str:
    """Standard output of a command that succeeds."""
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-m", "instil.cli", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": path, "INSTIL_CACHE": str(folder / "cache"), "COLUMNS": "120"},
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def run_small(site: Path, folder: Path, name: str) -> tuple[dict[str, Any], str]:
    """Result of a recipe after one epoch with one seed, and what the command has printed."""
    recipe = str(RECIPES / f"{name}.yaml")
    words = ("run", recipe, "--out", "run", "seeds=[0]", "train.epochs=1", *SMALL[name])
    output = instil(site, folder, *words)
    return json.loads((folder / "run" / "result.json").read_text()), output


@pytest.mark.slow
def test_methods_and_sources_of_the_plugin_are_listed(site: Path, tmp_path: Path) -> None:
    assert "Connectionist temporal classification" in instil(site, tmp_path, "methods", "tone_ctc")
    sources = json.loads(instil(site, tmp_path, "methods", "--kind", "data", "--json"))
    names = {source["name"] for source in sources}
    assert names >= {"keypad_tones", "two_spirals"}


@pytest.mark.slow
def test_a_task_with_sequences_and_a_metric_that_is_better_when_lower(
    site: Path, tmp_path: Path
) -> None:
    result, output = run_small(site, tmp_path, "keypad")
    assert (result["status"], result["headline"]) == ("complete", "error_rate")
    assert result["kind"] == "sequence"
    assert not result["higher_is_better"]
    assert result["data"]["labelled"] == 40
    assert set(result["gains"]) == {"pseudo_labels"}
    alone, distilled = (result[arm]["error_rate"]["mean"] for arm in ("alone", "distilled"))
    assert result["gain"]["mean"] == pytest.approx(alone - distilled)
    assert "Lower error_rate is better" in output


@pytest.mark.slow
def test_boosted_trees_teach_a_network(site: Path, tmp_path: Path) -> None:
    result, _ = run_small(site, tmp_path, "spirals")
    assert result["status"] == "complete"
    assert result["teacher"]["accuracy"]["mean"] > 0.8
    assert result["distilled"]["agreement"]["mean"] > 1 / 3
