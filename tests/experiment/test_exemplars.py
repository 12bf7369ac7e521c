"""Exemplars of earlier stages, the nearest mean as classifier, and the memory of a scheme."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from instil.core import Net
from instil.data.joined import JoinedSamples
from instil.experiment.exemplars import Exemplars
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.plan import fitting
from instil.recipe import RecipeError, build
from instil.recipe.overrides import override
from instil.recipe.sections import Recipe
from instil.students.nearest_mean import head_inputs
from tests.experiment.small import numbers, result, run_of

GROWN = {"model": "previous", "grow_head": True}
CONTINUAL: dict[str, Any] = {
    "data": {
        "name": "digits",
        "batch_size": 20,
        "test_classes": "seen",
        "exemplars": {"size": 24, "classifier": "nearest_mean"},
    },
    "student": {"model": "cnn", "options": {"width": 4}},
    "objectives": {"cross_entropy": {}},
    "train": {"epochs": 3, "optimizer": {"lr": 1e-2}, "checkpoint_every": 1},
    "stages": [
        {"name": "low", "data": {"class_subset": [1, 0]}},
        {"name": "middle", "data": {"class_subset": [2, 3]}, "student": GROWN},
        {
            "name": "high",
            "data": {"class_subset": [4, 5]},
            "student": GROWN,
            "teacher": {"model": "previous", "shared_classes": True},
            "objectives": {"cross_entropy": {}, "kd": {}},
        },
    ],
    "seeds": [0],
    "export": False,
}
DARK = ["data.exemplars=null", "scheme={type: der, size: 20}", "stages.2.teacher=null"]
DARK += ["stages.2.objectives={cross_entropy: {}}"]


def continual(*changes: str) -> Recipe:
    return build(override(CONTINUAL, changes))


def exemplars(recipe: Recipe, seed: int = 0) -> Exemplars:
    """Return the exemplars of untrained students."""
    stages = Experiment.from_recipe(recipe).stages

    def net(index: int) -> Net:
        torch.manual_seed(seed)
        return build_network(stages[0].recipe.student, stages[index], "student")

    return Exemplars(stages, seed, net)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exemplars") / "run"
    run_of(continual(), out)
    return out


@pytest.mark.parametrize("selection", ["herding", "random"])
def test_a_stage_has_equally_many_samples_of_each_old_class(selection: str) -> None:
    chosen = exemplars(continual(f"data.exemplars.selection={selection}"))
    assert chosen.stage(0) is chosen.stages[0]
    for index, count in ((1, 12), (2, 6)):
        stage = chosen.stage(index)
        train = stage.splits.train
        assert isinstance(train, JoinedSamples)
        new = len(chosen.stages[index].splits.train)
        old = train.subset(torch.arange(new, len(train)))
        assert torch.bincount(old.label).tolist() == [count] * (2 * index)
        # The images are those of the named digits: labels of stage 0 are in the order 1, 0.
        source = chosen.stages[0].splits.train
        for row in (0, 1):
            image = old.__getitems__([row])["image"]
            match = (source.__getitems__(range(len(source)))["image"] == image).flatten(1).all(1)
            assert source.label[match].tolist() == [old.label[row].item()]


def test_a_class_of_two_stages_has_as_many_samples_as_the_others() -> None:
    recipe = continual("stages.1.data.class_subset=[1, 2]", "data.exemplars.size=15")
    chosen = exemplars(recipe)
    stage = chosen.stage(2)
    train, names = stage.splits.train, stage.splits.classes
    new = len(chosen.stages[2].splits.train)
    counts = torch.bincount(train.subset(torch.arange(new, len(train))).label)
    assert {names[i]: int(count) for i, count in enumerate(counts)} == {"1": 5, "0": 5, "2": 5}


def test_few_labels_are_those_of_each_stage_and_all_exemplars_keep_theirs() -> None:
    chosen = exemplars(continual("data.num_labeled=30", "data.exemplars.selection=random"))
    for index, num_old in ((1, 12), (2, 6)):
        own = chosen.stages[index].train_data(0)
        train = chosen.stage(index).train_data(0)
        # The visible labels of the stage are the same as without exemplars.
        assert torch.equal(train.label[: len(own)], own.label)
        counts = torch.bincount(train.label[train.label >= 0]).tolist()
        assert counts == [num_old] * (2 * index) + [15] * 2


def test_a_smaller_number_keeps_the_first_exemplars() -> None:
    chosen = exemplars(continual())
    first, second = chosen.stage(1).splits.train, chosen.stage(2).splits.train
    assert isinstance(first, JoinedSamples)
    assert isinstance(second, JoinedSamples)
    for i in (1, 2):
        few = second.parts[i].__getitems__(range(6))["image"]
        assert torch.equal(few, first.parts[i].__getitems__(range(6))["image"])


def test_random_exemplars_depend_on_the_seed() -> None:
    recipe = continual("data.exemplars.selection=random")
    rows = [exemplars(recipe, seed).stage(1).splits.train.origin[-24:] for seed in (0, 0, 1)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_the_classifier_has_the_means_of_the_exemplars() -> None:
    chosen = exemplars(continual())
    net = chosen.net_of(1)
    head = chosen.classifier(1, net).model.head
    groups = chosen._chosen([0, 1], 24, chosen.stages[1].splits.classes)
    assert [name for name, _ in groups] == ["1", "0", "2", "3"]
    assert [len(samples) for _, samples in groups] == [6] * 4
    for row, (_, samples) in enumerate(groups):
        mean = head_inputs(net, [samples.__getitems__(range(6))], "").mean(0)
        assert torch.allclose(head.weight[row], mean / mean.norm(), atol=1e-6)
    assert head.bias.abs().sum() == 0
    # The student itself goes on with its own head.
    assert net.model.head.bias.abs().sum() > 0


def test_all_arms_are_scored_with_the_classifier(finished: Path) -> None:
    content = result(finished)
    for arm in ("alone", "distilled"):
        assert content["stages"]["arms"][arm]["after"][2][2] is not None
        weights = load_file(finished / "checkpoint" / f"{arm}-0.safetensors")
        norms = weights["head.weight"].norm(dim=1)
        assert torch.allclose(norms, torch.ones(6), atol=1e-5)
        assert content[arm]["average_accuracy"]["mean"] > 0.5
    # All arms have the same number of steps, which grows with the exemplars.
    lines = (finished / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    stage = exemplars(continual()).stage(1)
    steps = 3 * stage.loader(stage.splits.train).steps
    assert steps > 3 * stage.loader(Experiment.from_recipe(continual()).stages[1].samples).steps
    for arm in ("alone", "distilled"):
        last = [one["step"] for one in records if (one["arm"], one["stage"]) == (arm, 1)]
        assert max(last) == steps


@pytest.mark.parametrize(
    "changes",
    [pytest.param([], marks=pytest.mark.slow, id="exemplars"), pytest.param(DARK, id="der")],
)
def test_a_run_stopped_in_the_last_stage_ends_bit_for_bit_the_same(
    changes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = continual("baselines=[]", *changes)
    whole = run_of(recipe, tmp_path / "whole")
    fit = fitting.fit

    def stopped(*inputs: Any, on_step: Any, **options: Any) -> Any:
        def counted(clock: Any) -> None:
            if options["checkpoint"].stem == "distilled-0-stage2" and clock.step == 4:
                raise KeyboardInterrupt
            on_step(clock)

        return fit(*inputs, on_step=counted, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_of(recipe, tmp_path / "run")
    has_memory = (tmp_path / "run/checkpoint/distilled-0-stage1.memory.safetensors").exists()
    assert has_memory == bool(changes)
    assert numbers(run_of(recipe, tmp_path / "run", resume=True)) == numbers(whole)
    expected, actual = (
        load_file(tmp_path / name / "checkpoint/distilled-0.safetensors")
        for name in ("whole", "run")
    )
    assert all(torch.equal(value, actual[key]) for key, value in expected.items())
    assert not list((tmp_path / "run" / "checkpoint").glob("*memory*"))


def test_replay_keeps_old_classes(tmp_path: Path) -> None:
    """With a memory the first classes survive; fine-tuning forgets them."""
    content = run_of(continual("train.epochs=6", *DARK), tmp_path / "run")
    forgotten = {arm: content[arm]["forgetting"]["mean"] for arm in ("alone", "distilled")}
    assert forgotten["distilled"] < forgotten["alone"] - 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["stages=[]"], r"^data\.exemplars: there is no earlier stage"),
        (["data.exemplars.size=5"], r"^data\.exemplars\.size: 5 exemplars are fewer than the 6"),
        (
            ["stages.1.data.exemplars={size: 30}"],
            r"^data\.exemplars: the stages have different options",
        ),
        (["data.augment.mixup=true"], r"^stages\.0\.data\.exemplars: does not work with"),
        (["data.exemplars.size=0"], r"^data\.exemplars\.size: "),
        (["data.exemplars.selection=best"], r"^data\.exemplars\.selection: "),
    ],
)
def test_wrong_combinations_are_errors_before_training(
    changes: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        run_of(continual(*changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
