"""Asynchronous rollouts in a training: weights of each text, resuming, and errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from instil import recipe as recipes
from instil.core import Batch, Net, Objectives
from instil.engine import Optimization
from instil.generation.rollout import generate_text
from instil.generation.rollout_options import Rollouts
from instil.objectives.logits.reverse_kl import ReverseKL
from instil.recipe.errors import RecipeError
from instil.schemes.bases.writer import GenerativeScheme
from instil.schemes.language.distillm2 import DistiLLM2
from instil.schemes.language.dpkd_written import DPKDWritten
from instil.schemes.language.kdrl import KDRL
from instil.schemes.language.on_policy import OnPolicy
from instil.schemes.language.privileged_context import PrivilegedContext
from instil.teachers.frozen import Frozen
from instil.training.fit import FitResult, Training, TrainState, fit
from instil.weightings.truncated_importance import TruncatedImportance
from tests.schemes.texts import END, GREEDY, SAMPLING, VOCABULARY, informed, net, with_hints

LOADER = [with_hints(step, 4) for step in range(5)]


class Recording(OnPolicy):
    """Scheme that keeps the text and the weights of each step."""

    def before_step(self, batch: Batch) -> Batch:
        text = super().before_step(batch)
        self.seen.append((batch, text, copy.deepcopy(self.student)))
        return text

    @property
    def seen(self) -> list[tuple[Batch, Batch, Net]]:
        return vars(self).setdefault("_seen", [])


def scheme(weighted: bool = False, **options: Any) -> Recording:
    weights = {"reverse_kl": TruncatedImportance()} if weighted else {}
    objectives = Objectives({"reverse_kl": ReverseKL()}, sample_weights=weights)
    return Recording(net(8), Frozen(net(8, 1)), objectives, 1.0, SAMPLING, Rollouts(**options))


def trained(
    one: GenerativeScheme, path: Path | None = None, stop: int | None = None, **options: Any
) -> FitResult:
    def on_step(state: TrainState) -> None:
        if state.step == stop:
            raise KeyboardInterrupt

    optimizer = Optimization("sgd", {"lr": 0.5})
    settings: dict[str, Any] = {"epochs": 2, "device": "cpu", "optimizer": optimizer} | options
    return fit(one, LOADER, Training(**settings), checkpoint=path, on_step=on_step)


def same_weights(one: GenerativeScheme, other: GenerativeScheme, tolerance: float = 0.0) -> bool:
    pairs = zip(one.student.parameters(), other.student.parameters(), strict=True)
    return all(torch.allclose(left, right, 0.0, tolerance) for left, right in pairs)


@pytest.mark.parametrize("weighted", [False, True])
def test_staleness_0_is_the_synchronous_result(weighted: bool) -> None:
    one, other = scheme(weighted), scheme(weighted, staleness=0)
    trained(one)
    trained(other, accumulate=1)
    assert same_weights(one, other)
    for batch, text, student in other.seen:
        own = generate_text(student, batch, END, stream="scheme.text", vocabulary=VOCABULARY)
        assert torch.equal(own["token"], text["token"])
        # Without staleness the ratio of probabilities is 1.
        factor = TruncatedImportance()(student(text), {}, text)
        assert torch.allclose(factor, torch.ones(()), atol=1e-4)


@pytest.mark.parametrize(("staleness", "every"), [(1, None), (2, 1), (3, 2)])
def test_texts_are_those_of_the_student_some_steps_ago(staleness: int, every: int | None) -> None:
    one = scheme(True, staleness=staleness, push_every=every)
    result = trained(one)
    students = [student for _, _, student in one.seen]
    ages = []
    for step, (batch, text, _) in enumerate(one.seen):
        fitting = []
        for age in range(staleness + 1):
            if age <= step % len(LOADER):
                own = generate_text(
                    students[step - age], batch, END, stream="scheme.text", vocabulary=VOCABULARY
                )
                same = torch.equal(own["log_probability"], text["log_probability"])
                fitting += [age] if same else []
        assert len(fitting) == 1, f"step {step}: no earlier student has generated the text"
        ages += fitting
    assert max(ages) == staleness
    epochs = [ages[:5], ages[5:]]
    for record, of_epoch in zip(result.records, epochs, strict=True):
        assert record["staleness"] == pytest.approx(sum(of_epoch) / 5)
        assert record["rollout_version"] == record["step"] - 1 - of_epoch[-1]


def kdrl(**options: Any) -> KDRL:
    objectives = {"reverse_kl": ReverseKL()}
    rollouts = Rollouts(**options)
    reward = "token_accuracy"
    teacher = Frozen(net(8, 1))
    return KDRL(net(8), teacher, objectives, 3, reward, sampling=SAMPLING, rollouts=rollouts)


def distillm2(**options: Any) -> DistiLLM2:
    rollouts = Rollouts(**options)
    return DistiLLM2(net(8), Frozen(net(8, 1)), {}, sampling=SAMPLING, rollouts=rollouts)


def dpkd_written(**options: Any) -> DPKDWritten:
    rollouts = Rollouts(**options)
    return DPKDWritten(net(8), Frozen(net(8, 1)), {}, sampling=SAMPLING, rollouts=rollouts)


def privileged_context(**options: Any) -> PrivilegedContext:
    teacher = Frozen(informed(8, 1))
    settings: dict[str, Any] = {"reader": "teacher", "share": 0.7, "sampling": SAMPLING}
    rollouts = Rollouts(**options)
    objectives = {"reverse_kl": ReverseKL()}
    return PrivilegedContext(informed(), teacher, objectives, **settings, rollouts=rollouts)


MAKERS = [scheme, kdrl, distillm2, dpkd_written, privileged_context]


@pytest.mark.parametrize("make", MAKERS)
def test_the_age_of_the_weights_changes_the_result(make: Callable[..., GenerativeScheme]) -> None:
    current, copied, stale = make(), make(server=None), make(staleness=3)
    records = trained(stale).records
    assert all(0 < record["staleness"] <= 3 for record in records)
    trained(current)
    trained(copied)
    assert same_weights(current, copied)
    assert not same_weights(current, stale)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("stop", [2, 6])
def test_an_interrupted_training_continues_with_the_same_texts(
    make: Callable[..., GenerativeScheme], stop: int, tmp_path: Path
) -> None:
    whole, first, second = (make(staleness=3, push_every=2) for _ in range(3))
    options = {"checkpoint_steps": 1, "accumulate": 1}
    trained(whole, tmp_path / "whole.pt", **options)
    with pytest.raises(KeyboardInterrupt):
        trained(first, tmp_path / "part.pt", stop, **options)
    trained(second, tmp_path / "part.pt", **options)
    assert same_weights(whole, second)


def test_micro_batches_give_the_result_of_one_batch() -> None:
    one, other = (scheme(staleness=2) for _ in range(2))
    trained(one, epochs=1, accumulate=5)
    whole = {key: torch.cat([batch[key] for batch in LOADER]) for key in LOADER[0]}
    optimizer = Optimization("sgd", {"lr": 0.5})
    fit(other, [whole], Training(epochs=1, device="cpu", optimizer=optimizer))
    assert same_weights(one, other, 1e-6)


def test_ratios_need_the_distribution_of_the_student() -> None:
    objectives = Objectives(
        {"reverse_kl": ReverseKL()}, sample_weights={"reverse_kl": TruncatedImportance()}
    )
    with pytest.raises(ValueError, match=r"scheme\.sampling: truncated_importance needs texts"):
        OnPolicy(net(8), Frozen(net(8, 1)), objectives, sampling=GREEDY)


def test_wrong_options_of_a_recipe_name_their_path() -> None:
    path = Path(recipes.__file__).parents[1] / "recipes" / "language" / "on_policy.yaml"
    with pytest.raises(RecipeError, match=r"scheme\.rollouts: push_every: texts would be older"):
        recipes.load(path, ["scheme.rollouts={staleness: 1, push_every: 2}"])
    with pytest.raises(RecipeError, match=r"scheme\.rollouts\.stalenes: unknown option"):
        recipes.load(path, ["scheme.rollouts={stalenes: 1}"])
