"""A run of several stages that is killed during any stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from instil.plan import fitting
from instil.recipe.sections import Recipe
from tests.experiment.small import lines, numbers, recipe, result, run_of

STAGES: list[dict[str, Any]] = [
    {"name": "hint", "objectives": {"hint": {"type": "fitnet", "pairs": [[1, 1]]}}},
    {
        "name": "peers",
        "teacher": None,
        "student": "previous",
        "scheme": {"type": "previous_epoch"},
        "objectives": {"ps_kd": {"alpha": 0.5}},
    },
    {
        "student": {"model": "stage:hint", "freeze": ["stages.0", "stages.1"]},
        "teacher": "stage:peers",
        "data": {"sampler": "two_views"},
    },
]
STEPS = 8


def staged() -> Recipe:
    """Return a recipe of three stages: hint, self-distillation, and KD from the second stage.

    The student of the last stage is that of the first, with frozen first parts.
    """
    train = {"epochs": 2, "optimizer": {"lr": 1e-2}, "checkpoint_every": 1}
    student = {"model": "cnn", "options": {"width": 2}}
    return recipe("baselines=[]", "seeds=[0]", train=train, student=student, stages=STAGES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run_of(staged(), out)
    return out


@pytest.mark.parametrize("stage", range(3))
def test_a_run_stopped_in_any_stage_ends_bit_for_bit_the_same(
    stage: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_files = [
        line["step"]
        for line in lines(undisturbed)
        if line["arm"] == "distilled" and line["stage"] == stage
    ]
    assert len(expected_files) == 2
    seen: list[int] = []
    fit = fitting.fit

    def stopped(*inputs: Any, on_step: Any, **options: Any) -> Any:
        name = options["checkpoint"].stem

        def counted(clock: Any) -> None:
            if name == f"distilled-0-stage{stage}":
                seen.append(clock.step)
                if clock.step == expected_files[0] + 1:
                    raise KeyboardInterrupt
            on_step(clock)

        return fit(*inputs, on_step=counted, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_of(staged(), tmp_path / "run")
    assert seen == list(range(1, expected_files[0] + 2)), (
        "it stopped a step after the first checkpoint"
    )
    files = {path.name for path in (tmp_path / "run" / "checkpoint").glob("distilled*")}
    assert {name for name in files if ".previous" not in name} == {
        *(f"distilled-0-stage{index}.safetensors" for index in range(stage)),
        f"distilled-0-stage{stage}.pt",
    }
    torch.manual_seed(99)
    assert numbers(run_of(staged(), tmp_path / "run", resume=True)) == numbers(result(undisturbed))
    expected, actual = (
        load_file(out / "checkpoint" / "distilled-0.safetensors")
        for out in (undisturbed, tmp_path / "run")
    )
    assert expected
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
