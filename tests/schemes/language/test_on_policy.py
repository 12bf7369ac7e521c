"""Share of the steps on the student's own text, and the errors of schemes that generate text."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil import recipe as recipes
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.schemes import build_scheme
from instil.generation.options import Sampling
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.jsd import JSD
from instil.objectives.logits.reverse_kl import ReverseKL
from instil.plan.doctor import doctor
from instil.schemes.language.on_policy import OnPolicy
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests import nets
from tests.schemes.texts import SAMPLING, net, prompts, timed

ROOT = Path(__file__).parents[3]


# The contract compares step 1 with the last five, so this share must give them text of one kind.
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_contracts(share: float) -> None:
    check_scheme(
        lambda: OnPolicy(
            net(8),
            Frozen(net(8, 1)),
            {"jsd": JSD(), "cross_entropy": CrossEntropy()},
            share,
            SAMPLING,
        ),
        prompts,
    )


def test_share_of_the_steps_with_student_text() -> None:
    scheme = OnPolicy(net(8), Frozen(net(8, 1)), {"reverse_kl": ReverseKL()}, 0.3, SAMPLING)
    is_own = [bool((scheme.before_step(timed(step))["label"] == -100).all()) for step in range(60)]
    assert 8 <= sum(is_own) <= 28


def test_student_text_has_no_labels() -> None:
    scheme = OnPolicy(
        net(8),
        Frozen(net(8, 1)),
        {"reverse_kl": ReverseKL(), "cross_entropy": CrossEntropy(average="labelled")},
        1.0,
        SAMPLING,
    )
    counts = scheme.counts(scheme.before_step(timed()))
    assert float(counts["cross_entropy"]) == 0
    assert float(counts["reverse_kl"]) > 0


def test_unsuitable_batches_and_teachers_are_errors() -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        OnPolicy(net(8), None, {"cross_entropy": CrossEntropy()}).prepare(prompts())
    with pytest.raises(ValueError, match="needs rows of tokens with 'input_ids'"):
        OnPolicy(nets.net(8), Frozen(nets.net(8)), {"jsd": JSD()}).prepare(nets.batch())
    length = prompts()["input_ids"].shape[1]
    with pytest.raises(
        ValueError,
        match=(
            rf"scheme\.sampling\.min_prompt_tokens: .* the {length} tokens of a row, got "
            rf"{length}"
        ),
    ):
        OnPolicy(
            net(8), Frozen(net(8)), {"jsd": JSD()}, sampling=Sampling(min_prompt_tokens=length)
        ).prepare(prompts())


def test_precomputed_teacher_outputs_are_an_error() -> None:
    recipe = recipes.load(
        ROOT / "src/instil/recipes" / "language" / "on_policy.yaml",
        ["data.rows=64", "data.held_out=8", "teacher.precompute=true"],
    )
    with pytest.raises(
        ValueError,
        match=(
            r"teacher\.precompute: the scheme on_policy needs teacher outputs for texts that are "
            r"generated during training"
        ),
    ):
        doctor(recipe)


def test_the_default_end_is_the_end_token_of_the_data() -> None:
    recipe = recipes.load(
        ROOT / "src/instil/recipes" / "language" / "on_policy.yaml",
        ["data.rows=64", "data.held_out=8"],
    )
    experiment = Experiment.from_recipe(recipe)
    student, teacher = (
        build_network(spec, experiment, "student") for spec in (recipe.student, *recipe.teachers)
    )
    scheme = build_scheme(experiment, student, Frozen(teacher))
    assert isinstance(scheme, OnPolicy)
    assert scheme.sampling.eos_token_id == experiment.facts["end"]
    assert experiment.splits.train.text_of([experiment.facts["end"]]) == ""


@pytest.mark.parametrize(
    ("share", "has_problem"), [("0.99", False), ("{start: 1, end: 0.5}", False), ("1", True)]
)
def test_doctor_accepts_a_label_loss_if_some_steps_use_the_text_of_the_data(
    share: str, has_problem: bool
) -> None:
    path = ROOT / "src/instil/recipes" / "language" / "on_policy.yaml"
    small = ["data.rows=64", "data.held_out=8", "device=cpu"]
    report = doctor(recipes.load(path, [*small, f"scheme.share={share}"]))
    problems = [line for line in report["problems"] if "objectives.cross_entropy" in line]
    assert len(problems) == has_problem
    assert all("all steps use generated text" in line for line in problems)
