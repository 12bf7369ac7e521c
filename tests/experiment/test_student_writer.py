"""Student of a recipe as a folder for a server of texts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.student_writer import StudentWriter
from instil.recipe.errors import RecipeError
from tests.experiment.small import among_texts
from tests.experiment.test_language_models import (
    LLAMA,
    MODULE,
    TEACHER,
    load_if_trained,
    spoken,
)

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    among_texts(tmp_path, monkeypatch)
    (tmp_path / "their_models.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("their_models", None)


def test_a_missing_server_is_an_error_of_the_recipe_and_the_student_is_written(
    tmp_path: Path,
) -> None:
    rollouts = {
        "server": "vllm",
        "url": "http://127.0.0.1:9/v1",
        "folder": str(tmp_path / "weights"),
    }
    scheme = {"type": "on_policy", "share": 1.0, "rollouts": rollouts}
    recipe = spoken(student=LLAMA, teacher=TEACHER, scheme=scheme, objectives={"reverse_kl": {}})
    with pytest.raises(RecipeError, match=r"scheme\.rollouts\.url: .* no server listens there"):
        list(dry_run(Experiment.from_recipe(recipe), load_if_trained))
    assert (tmp_path / "weights" / "student" / "config.json").is_file()


def test_a_folder_has_the_current_weights(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    experiment = Experiment.from_recipe(spoken(student=LLAMA, teacher=TEACHER))
    net = build_network(experiment.recipe.student, experiment, "student")
    write, folder = StudentWriter(experiment), tmp_path / "weights" / "student"
    for _ in range(2):
        write(net, folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        for name, weight in net.model.state_dict().items():
            assert torch.equal(model.state_dict()[name], weight), name
        with torch.no_grad():
            net.model.lm_head.weight.add_(1.0)
    assert [path.name for path in folder.parent.iterdir()] == ["student"]
