"""The device of a recipe is checked first and used by the whole command, but not after it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from instil.engine import init_distributed
from instil.engine.devices import check_device, default_device
from instil.experiment.device import on_device_of_recipe
from instil.plan.doctor import doctor
from instil.recipe import RecipeError
from tests.experiment.small import recipe, run_of


def test_auto_is_the_device_of_the_recipe_inside_its_command() -> None:
    @on_device_of_recipe
    def command(_recipe: object) -> torch.device:
        return init_distributed()

    assert command(recipe("device=cpu")) == torch.device("cpu")
    before = init_distributed()
    with default_device("meta"):
        assert init_distributed() == torch.device("meta")
        assert init_distributed("cpu") == torch.device("cpu"), "what is named is meant"
    assert init_distributed() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_named_before_anything_is_done(
    name: str, tmp_path: Path
) -> None:
    message = rf"^device: this machine has no such device\. Expected auto, cpu.*, got {name}$"
    with pytest.raises(RecipeError, match=message):
        run_of(recipe(f"device={name}"), tmp_path / "run")
    with pytest.raises(RecipeError, match=message):
        doctor(recipe(f"device={name}"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", "CUDA"])
def test_a_name_that_is_no_device(name: str) -> None:
    with pytest.raises(RecipeError, match=rf"device: auto, cpu, cuda, .* expected, not '{name}'"):
        recipe(f"device={name}")


def test_several_processes_do_not_share_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(ValueError, match=r"Expected auto, cpu, cuda, cuda:0, cuda:1.* got cuda:2"):
        check_device("cuda:2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ValueError, match=r"several processes cannot share .* Expected auto or cuda"
    ):
        check_device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_device("cuda")
