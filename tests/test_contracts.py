"""Every method of the catalogue satisfies its contracts; no method is listed by name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import nn

from instil import catalogue, recipe
from instil.capabilities import CountsLabels
from instil.catalogue import plugins
from instil.catalogue.signatures import parameters
from instil.core import Batch, Card, Net, Objective, Objectives, Schedule, Scheme, Teacher
from instil.objectives.logits.kd import KD
from instil.objectives.logits.logit_mse import LogitMSE
from instil.recipe.overrides import parse
from instil.tasks.bases.checks import KINDS
from instil.teachers.frozen import Frozen
from instil.testing import check_objective, check_scheme, check_task, check_teacher
from instil.testing.classes import check_position_shapes
from instil.testing.sample_sides import NUM_CLASSES
from instil.testing.samples import sample_outputs
from instil.testing.structures import leaves, scale_tensors
from tests.nets import batch, net
from tests.tasks.samples import SAMPLES


def bare(annotation: Any) -> Any:
    """``Annotated[float, ...]`` and ``float | Schedule`` as ``float``."""
    if hasattr(annotation, "__metadata__"):
        return bare(get_args(annotation)[0])
    parts = [part for part in get_args(annotation) if part not in (Schedule, type(None))]
    return (
        bare(parts[0])
        if get_origin(annotation) is not Literal
        and len(parts) == 1
        and not isinstance(annotation, type)
        else annotation
    )


def others(parameter: inspect.Parameter) -> list[Any]:
    """Return values other than the default that an option may have."""
    kind, default = bare(parameter.annotation), parameter.default
    if get_origin(kind) is Literal:
        return [value for value in get_args(kind) if value != default]
    if kind is bool:
        return [not default]
    if kind is float:
        return [default / 2 if default else 0.25]
    if kind is int:
        return [(default or 0) + 1]
    if get_origin(kind) is dict:
        return [{"loss": 0.5}]
    parts = get_args(kind)  # a list of pairs, or a rule by its name
    rules = [
        rule
        for part in parts
        if get_origin(part) is Literal
        for rule in get_args(part)
        if rule != default
    ]
    pairs = [[[1, 1]]] if list[list[int]] in parts else []
    return [*rules, *pairs]


def every_option() -> Iterator[tuple[str, str, Any]]:
    for name in catalogue.names("objective"):
        for option, parameter in parameters(catalogue.find("objective", name)).items():
            for value in others(parameter):
                yield name, option, value


def choices() -> list[tuple[str, str, Any]]:
    """Return options that select another formula."""
    return [
        (name, option, value)
        for name, option, value in every_option()
        if isinstance(value, (bool, str))
    ]


@pytest.mark.parametrize("name", catalogue.names("objective"))
def test_objective(name: str) -> None:
    check_objective(smaller(name))


@pytest.mark.parametrize(("name", "option", "value"), choices())
def test_objective_with_another_choice(name: str, option: str, value: Any) -> None:
    check_objective(smaller(name, **{option: value}))


@pytest.mark.parametrize("name", catalogue.names("objective"))
def test_losses_on_logits_take_any_positions(name: str) -> None:
    check_position_shapes(smaller(name))


def smaller(name: str, **options: Any) -> Any:
    """Build an objective with smaller memories, which does not change its formula."""
    kind = catalogue.find("objective", name)
    for option, parameter in parameters(kind).items():
        if bare(parameter.annotation) is int and (parameter.default or 0) > 1000:
            options.setdefault(option, 64)

    def make() -> Any:
        objective = kind(**options)
        if isinstance(objective, CountsLabels) and objective.needs_label_counts:
            objective.set_label_counts(torch.arange(NUM_CLASSES))
        return objective

    return make


@pytest.mark.parametrize(("name", "option", "value"), list(every_option()))
def test_an_option_is_kept_under_its_name_and_survives_a_recipe(
    name: str, option: str, value: Any
) -> None:
    kind = catalogue.find("objective", name)
    assert getattr(kind(**{option: value}), option) == value
    goal = {"type": name, "weight": 0.5, option: value}
    whole = {
        "name": "it",
        "data": {"name": "digits"},
        "teacher": "networks:cnn",
        "student": "networks:mlp",
        "objectives": {"goal": goal},
    }
    text = recipe.to_yaml(recipe.build(whole))
    again = recipe.build(parse(text, "text"))
    assert recipe.to_yaml(again) == text
    objectives = recipe.build_objectives(again.objectives)
    assert type(objectives["goal"]) is kind
    assert getattr(objectives["goal"], option) == value
    assert objectives.weights == {"goal": 0.5}


@pytest.mark.parametrize("name", catalogue.names("objective"))
def test_every_option_has_another_value_to_try(name: str) -> None:
    for option, parameter in parameters(catalogue.find("objective", name)).items():
        assert others(parameter), (
            f"tests/test_contracts.py knows no other value for {name}.{option}: "
            f"{parameter.annotation}"
        )


@pytest.mark.parametrize("name", catalogue.names("objective"))
def test_a_number_may_be_a_schedule(name: str) -> None:
    """A schedule that stands still gives the number's loss."""
    from instil.core import Objectives
    from instil.testing import sample_outputs

    for option, parameter in parameters(catalogue.find("objective", name)).items():
        if bare(parameter.annotation) is not float:
            continue
        losses = []
        for value in (parameter.default, Schedule(parameter.default, parameter.default)):
            torch.manual_seed(0)
            objective = smaller(name, **{option: value})()
            student, teacher, sample_batch = sample_outputs(task=objective.card.tasks[0])
            objectives = Objectives({"it": objective})
            objectives.build(student, teacher)
            losses.append(objectives(student, teacher, sample_batch).losses["it"])
        assert torch.equal(*losses), option


@pytest.mark.parametrize("kind", catalogue.kinds())
def test_cards_say_where_a_method_comes_from(kind: str) -> None:
    for name in catalogue.names(kind):
        card = catalogue.find(kind, name).card
        assert isinstance(card, Card)
        assert card.title, name
        if kind == "objective":
            assert card.source in ("labels", "logits", "features", "relations"), name
            assert set(card.labels) <= set(KINDS), name
        if kind == "scheme":
            assert card.source in ("offline", "online", "self"), name


@pytest.mark.parametrize("kind", catalogue.kinds())
def test_a_published_weight_has_a_setting(kind: str) -> None:
    for name in catalogue.names(kind):
        card = catalogue.find(kind, name).card
        if card.published_weight is None:
            assert not card.weight_setting, name
            continue
        # A scheme has weights of its own options, and the losses on labels have the weight 1.
        assert (kind, card.source) != ("objective", "labels"), name
        assert kind == "objective", name
        assert isinstance(card.published_weight, float), name
        assert card.published_weight > 0, name
        # A phrase that the pages show in brackets.
        assert card.weight_setting.strip(), name
        assert not card.weight_setting.endswith("."), name


def arguments(kind: type, factories: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a class by the names of its parameters."""
    needed = [
        name
        for name, p in inspect.signature(kind).parameters.items()
        if p.default is inspect.Parameter.empty
    ]
    missing = set(needed) - set(factories)
    assert not missing, (
        f"tests/test_contracts.py does not know what to give {kind.__name__} as "
        f"{', '.join(missing)}; add it there"
    )
    return {name: factories[name]() for name in needed}


@pytest.mark.parametrize("name", catalogue.names("weighting"))
def test_weighting(name: str) -> None:
    """A finite factor of 0 or more for each sample, whatever the logits, that multiplies the loss
    of the sample.
    """
    for scale in (1.0, 1e4):
        student, teacher, sample_batch = sample_outputs()
        student, teacher = scale_tensors(student, scale), scale_tensors(teacher, scale)
        weighting = catalogue.find("weighting", name)()
        if name == "truncated_importance":
            # It differs from 1 on generated text only.
            token = sample_batch["label"].clamp_min(0)
            sample_batch |= {"token": token, "log_probability": torch.full(token.shape, -1.0)}
        objectives = Objectives({"kd": KD()}, sample_weights={"kd": weighting})
        objectives.build(student, teacher)
        factor = weighting(student, teacher, sample_batch)
        assert factor.shape == (len(sample_batch["label"]),)
        assert torch.isfinite(factor).all()
        assert (factor >= 0).all()
        expected = (KD()(student, teacher, sample_batch) * factor).mean()
        assert torch.allclose(objectives(student, teacher, sample_batch).losses["kd"], expected)
        assert scale > 1 or factor.std() > 0, "all samples have one factor"


@pytest.mark.parametrize("name", catalogue.names("balance"))
def test_balance(name: str) -> None:
    """The initial weights are those of the recipe; only ``after_step`` changes the state."""
    student, teacher, sample_batch = sample_outputs()
    student = {"features": tuple(2 * stage for stage in leaves(student)["features"])}
    student["logits"] = student["features"][0].flatten(1)[:, :7]
    balance = catalogue.find("balance", name)()
    objectives = Objectives({"kd": KD(), "mse": LogitMSE()}, balance=balance)
    objectives.build(student, teacher)
    before = copy.deepcopy(balance.state_dict())
    update = objectives(student, teacher, sample_batch)
    assert torch.allclose(update.losses["kd"], KD()(student, teacher, sample_batch).mean())
    assert all(torch.equal(value, before[key]) for key, value in balance.state_dict().items())
    assert dict(objectives.items()).keys() == {"kd", "mse"}
    objectives.after_step(update.state_updates)
    assert list(balance.parameters()) or any(
        not torch.equal(value, before[key]) for key, value in balance.state_dict().items()
    )


def checked_on_their_own(kind: str) -> set[str]:
    """Return the methods whose own tests check the contracts, with other networks or batches."""
    check = f"check_{kind}("
    return {
        path.stem.removeprefix("test_")
        for path in (Path(__file__).parent / f"{kind}s").rglob("test_*.py")
        if check in path.read_text(encoding="utf-8")
    }


@pytest.mark.parametrize(
    "name", sorted(set(catalogue.names("scheme")) - checked_on_their_own("scheme"))
)
def test_scheme(name: str) -> None:
    kind: type[Scheme] = catalogue.find("scheme", name)
    factories: dict[str, Any] = {
        "student": lambda: net(8),
        "teacher": lambda: Frozen(net(8, 1)),
        "peers": lambda: [net(6, 2), net(8, 3)],
        "objectives": lambda: {
            "kd": KD(),
            "cross_entropy": catalogue.find("objective", "cross_entropy")(),
        },
    }
    check_scheme(lambda: kind(**arguments(kind, factories)), lambda step: batch(seed=step))


@pytest.mark.parametrize(
    "name", sorted(set(catalogue.names("teacher")) - checked_on_their_own("teacher"))
)
def test_teacher(name: str) -> None:
    kind: type[Teacher] = catalogue.find("teacher", name)
    factories: dict[str, Any] = {
        "net": lambda: net(8, dropout=0.5),
        "members": lambda: [net(8), net(4, 1, dropout=0.5)],
    }
    check_teacher(lambda: kind(**arguments(kind, factories)), batch())


@pytest.mark.parametrize("name", catalogue.names("task"))
def test_task(name: str) -> None:
    sample, model = SAMPLES[name]
    check_task(catalogue.find("task", name), sample(), model and model())


def test_a_file_that_was_just_put_there_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "late_loss.py").write_text(
        "from torch import Tensor\n"
        "from instil.core import Card, Objective\n\n"
        "class LateLoss(Objective):\n"
        '    card = Card("late", finite_logits=True)\n\n'
        "    def forward(self, student, teacher, batch) -> Tensor:\n"
        "        return (student['logits'] - teacher['logits']).square().sum(1)\n"
    )
    monkeypatch.setattr(plugins, "imported", {})
    monkeypatch.syspath_prepend(tmp_path)
    catalogue.add(["late_loss"])
    assert "late_loss" in catalogue.names("objective")
    kind: type[Objective] = catalogue.find("objective", "late_loss")
    check_objective(kind)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ("objective", "scheme", "teacher") for name in catalogue.names(kind)],
)
def test_d7_nothing_that_can_change_is_shared_on_a_class(kind: str, name: str) -> None:
    """Instances of one class do not see each other: no list, set, module or tensor hangs on the
    class, and dicts are declarations.
    """
    cls = catalogue.find(kind, name)
    for owner in cls.__mro__:
        if not owner.__module__.startswith("instil"):
            continue
        for attribute, value in vars(owner).items():
            mutable = isinstance(value, (list, set, bytearray, torch.Tensor, nn.Module, dict))
            declared = attribute in (
                "needs",
                "__annotations__",
                "__annotations_cache__",
            )
            assert not mutable or declared, f"{owner.__name__}.{attribute} is shared"


def test_d7_two_nets_around_models_of_one_class_do_not_see_each_other() -> None:
    sample_batch: Batch = batch()
    one, two = net(8, 0), net(8, 1)
    a, b = one(sample_batch), two(sample_batch)
    assert torch.equal(a["embedding"], one(sample_batch)["embedding"])
    assert not torch.equal(a["embedding"], b["embedding"])
    assert one.taps is not two.taps
    plain = Net(one.model, one.call)
    assert set(plain(sample_batch)) == {"logits"}
