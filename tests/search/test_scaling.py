"""Options that scale a student within its family."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.networks.causal_transformer import causal_transformer
from instil.search.scaling import LARGEST_RATIO, ScaledStudent, scale_between, scaled_student
from instil.search.student_arms import student_arms
from tests.search.recipes import recipe


def sections(**changes: Any) -> dict[str, dict[str, Any]]:
    """Sections of the students of a language model by name."""
    own = recipe(student={"model": "networks:vit", "options": {"width": 16}}, **changes)
    teacher = causal_transformer(11, width=16, depth=4)
    arms = student_arms(own, teacher, ("networks", "teacher", "timm:resnet18"))
    own_section = own.student.model_dump(mode="json")
    return {arm.name: arm.changes.get("student", own_section) for arm in arms}


def scaled(name: str) -> ScaledStudent:
    student = scaled_student(sections()[name])
    assert student is not None
    return student


def test_a_student_of_another_scale_has_the_name_and_the_family_of_a_candidate() -> None:
    for name, scale, other in (
        ("teacher_pruned_50", 0.25, "teacher_pruned_75"),
        ("teacher_3_layers", 1, "teacher_1_layers"),
    ):
        student = scaled(name).with_scale(scale)
        assert student.name == other
        assert student.section == sections()[other]
        assert student.family == scaled(other).family
        assert student.scale == scale


def test_widths_belong_to_one_depth_and_are_multiples_of_the_heads() -> None:
    names = [name for name in sections() if name.startswith("vit_")]
    assert len(names) > 3
    own = scaled("recipe")
    deep = [name for name in names if name.endswith(own.name[-3:])]
    assert {scaled(name).family for name in deep} == {own.family}
    assert {scaled(name).family for name in {*names} - {*deep}}.isdisjoint({own.family})
    heads = own.section["options"]["heads"]
    assert own.unit == 2 * heads
    assert own.with_scale(2 * heads).name.startswith(f"vit_w{2 * heads}_d")


@pytest.mark.parametrize("name", ["teacher_8_bits", "teacher_lsq_4_bits", "resnet18"])
def test_bits_and_foreign_models_have_no_scale(name: str) -> None:
    assert scaled_student(sections()[name]) is None


def test_two_changes_have_no_single_scale() -> None:
    section = sections()["teacher_pruned_50"]
    section["changes"]["depth"] = {"layers": 2}
    assert scaled_student(section) is None


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([1, 4]))
def test_the_scale_between_two_others_divides_their_ratio(
    lower: int, upper: int, unit: int
) -> None:
    scale = scale_between(upper, lower, unit)
    if scale is None:
        middle = [one for one in range(lower + 1, upper) if one % unit == 0]
        # The unit may be too coarse for a value near the geometric mean.
        assert upper <= LARGEST_RATIO * lower or len(middle) * unit <= 2 * unit
    else:
        assert lower < scale < upper
        assert scale % unit == 0
        assert abs(scale - (lower * upper) ** 0.5) <= unit / 2 + 1e-6


def test_below_the_smallest_scale_the_next_one_is_half_as_large() -> None:
    assert scale_between(0.5, None, 0.01) == 0.25
    assert scale_between(1, None, 1) is None
