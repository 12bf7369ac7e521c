"""Folders of searches that ended early, were edited or are damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instil.search import search as searches
from instil.search.folder import starting
from instil.search.search import Settings, start
from tests.search.recipes import continue_search, recipe, search, silent, without_times


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished search."""
    folder = tmp_path_factory.mktemp("folder") / "first"
    search(folder, candidates=("dkd",), num_seeds=1)
    return folder


def copy_of(finished: Path, path: Path) -> Path:
    shutil.copytree(finished, path)
    return path


def test_a_search_that_ended_before_its_first_round_can_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(searches, "plan_rounds", stop)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "out", candidates=("dkd",), num_seeds=1)
    assert (tmp_path / "out/work").is_dir()
    message = "another process is starting a search"
    with pytest.raises(FileExistsError, match=message), starting(tmp_path / "out"):
        search(tmp_path / "out", candidates=("dkd",), num_seeds=1)
    search(tmp_path / "out", candidates=("dkd",), num_seeds=1)


def test_other_files_are_never_overwritten(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match=r"already holds a search.* or --resume"):
        search(finished)
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is not empty.*'recipe\.yaml'"):
        search(tmp_path)
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        search(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("damage", ["", "{", "flipped"])
def test_a_damaged_trial_is_trained_again(finished: Path, tmp_path: Path, damage: str) -> None:
    folder = copy_of(finished, tmp_path / "copy")
    expected = json.loads((finished / "search.json").read_text())
    path = next((folder / "trials").iterdir())
    text = path.read_text()
    path.write_text(text.replace('"score": 0', '"score": 1') if damage == "flipped" else damage)
    assert path.read_text() != text
    continue_search(folder)
    result = json.loads((folder / "search.json").read_text())
    assert without_times(result) == without_times(expected)


def test_a_trial_of_an_earlier_version_has_no_checksum(finished: Path, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "copy")
    path = next((folder / "trials").iterdir())
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content | {"seconds": 12345.0}))
    assert continue_search(folder)["seconds"] > 12345


def test_a_damaged_state_is_named(finished: Path, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "copy")
    for text in ("{", "[]"):
        (folder / "study.json").write_text(text)
        with pytest.raises(ValueError, match=r"--resume: .*study\.json"):
            continue_search(folder)


def test_an_edited_recipe_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "copy")
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("lr: 0.01", "lr: 0.02"))
    with pytest.raises(ValueError, match=r"recipe\.yaml was edited after the start"):
        continue_search(folder)


def test_changed_data_are_refused(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    image = generator.random((90, 4, 4), np.float32)
    label = np.arange(90) % 3
    split = np.repeat([0, 1, 2], [50, 20, 20])
    np.savez(tmp_path / "own.npz", image=image, label=label, split=split)
    own = recipe(data={"name": f"npz:{tmp_path / 'own.npz'}"})
    settings = Settings(candidates=("dkd",), num_seeds=1)
    start(own, settings, tmp_path / "out", silent())
    np.savez(tmp_path / "own.npz", image=1 - image, label=label, split=split)
    with pytest.raises(ValueError, match=r"the data of .* have changed"):
        continue_search(tmp_path / "out")
    # Test samples only: finals before and after would be compared on different samples.
    changed = image.copy()
    changed[split == 2] = 0
    np.savez(tmp_path / "own.npz", image=changed, label=label, split=split)
    with pytest.raises(ValueError, match=r"the data of .* have changed"):
        continue_search(tmp_path / "out")


SIDE_DATA: dict[str, dict[str, Any]] = {
    "data.surrogate": {"data": {"name": "digits"}, "objectives": {"kd": {}}},
    "teacher.data": {"teacher": {"model": "networks:mlp", "options": {"width": 32}}},
}
"""Sections of a recipe with data of a second source."""


@pytest.mark.parametrize("path", SIDE_DATA)
def test_changed_data_of_a_teacher_and_surrogate_images_are_refused(
    path: str, tmp_path: Path
) -> None:
    file = tmp_path / "own.npz"
    image = np.random.default_rng(0).random((90, 8, 8), np.float32)
    np.savez(file, image=image, label=np.arange(90) % 10)
    section, key = path.split(".")
    sections = SIDE_DATA[path]
    changes = {**sections, section: {**sections[section], key: {"name": f"npz:{file}"}}}
    settings = Settings(candidates=("dist",), num_seeds=1)
    start(recipe(**changes), settings, tmp_path / "out", silent())
    np.savez(file, image=1 - image, label=np.arange(90) % 10)
    with pytest.raises(ValueError, match=rf"--resume: {path} has changed since the start"):
        continue_search(tmp_path / "out")
    np.savez(file, image=image, label=np.arange(90) % 10)
    # A search of an earlier version has no fingerprint of these data.
    state = json.loads((tmp_path / "out/study.json").read_text())
    del state["input_hashes"][path]
    state["code_hashes"] = state.pop("input_hashes")
    (tmp_path / "out/study.json").write_text(json.dumps(state))
    continue_search(tmp_path / "out")
    # Without the version of the outputs, finished trainings may have had others.
    del state["code_hashes"]["outputs of this version of instil"]
    (tmp_path / "out/study.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="outputs of this version of instil has changed"):
        continue_search(tmp_path / "out")


def test_changed_code_of_the_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_module_of_a_search.py"
    module.write_text("def value() -> int:\n    return 1\n")
    own = recipe(imports=[module.stem], folder=str(tmp_path))
    start(own, Settings(candidates=("dkd",), num_seeds=1), tmp_path / "out", silent())
    module.write_text("def value() -> int:\n    return 2\n")
    with pytest.raises(ValueError, match=r"--resume: imports \(own_module.*\) has changed since"):
        continue_search(tmp_path / "out")


def test_changed_code_of_a_student_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    module = tmp_path / "own_student_of_a_search.py"
    module.write_text(
        "from instil.networks.mlp import mlp\ndef small(classes): return mlp(classes, width=4)\n"
    )
    own = recipe(folder=str(tmp_path), train={"steps": 4})
    students = (f"{module.stem}:small",)
    settings = Settings(over=("students",), students=students, num_seeds=1, keep=0.01)
    start(own, settings, tmp_path / "out", silent())
    module.write_text(module.read_text().replace("4", "5"))
    with pytest.raises(ValueError, match=r"--resume: small: student\.model .* has changed since"):
        continue_search(tmp_path / "out")


def test_candidates_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    message = "--candidates: none fits.*got mutual: .*peers.*; offline: is a loss on labels"
    with pytest.raises(ValueError, match=message):
        search(tmp_path / "out", candidates=("mutual", "offline"))
