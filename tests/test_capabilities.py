"""Capabilities of methods: protocols, tags of the card, and errors for removed class attributes."""

from __future__ import annotations

import pytest

from instil import capabilities, catalogue, core
from instil.cards import Card, Tag, has_tag
from instil.cards.removed import REMOVED
from instil.core import Balance, Objective, Scheme, Teacher

ROBUST = "adaad adversarial_training ard iad iad_ii rslad"
GENERATIVE = (
    "distillm distillm2 dpkd_written kdrl minillm on_policy privileged_context sequence_level "
    "speculative"
)
INVERTING = "cmi dafl deep_inversion dfad dfq fast_data_free zskt"
USERS = {
    ("scheme", "CarriesMemory"): "der",
    ("scheme", "EvaluatesRobustness"): ROBUST,
    ("scheme", "FiltersTeacherSequences"): "distil_whisper sequence_level",
    ("scheme", "GeneratesText"): GENERATIVE,
    ("scheme", "RetokenizesTexts"): "on_policy",
    ("scheme", "SynthesizesImages"): INVERTING,
    ("scheme", "VerifiesTexts"): "kdrl sequence_level",
    ("scheme", "TrainsOtherStudents"): "sandwich several_students",
    (
        "scheme",
        "RestrictsSharding",
    ): "add adversarial cold_brew distil_whisper dphubert folded_transform "
    f"ladd mean_flow reused_classifier sandwich scm sequence_kd {GENERATIVE}",
    ("objective", "RestrictsSharding"): "camkd",
    ("balance", "RestrictsSharding"): "gradient_norm",
    ("objective", "GivesSoftTargets"): "cross_entropy deit_soft dlb kd label_smoothing "
    "logit_standardization multi_label_kd tf_kd_self",
    ("objective", "GivesRealTargets"): "logit_mse mean_squared_error",
    ("teacher", "Precomputes"): "private_votes",
    ("teacher", "AccountsPrivacy"): "private_votes",
    ("teacher", "ExplainsMissingRoles"): "ensemble recorded",
}
"""Kind and protocol -> names of all methods that have it."""


@pytest.mark.parametrize(("kind", "protocol"), USERS)
def test_a_protocol_is_found_by_its_methods(kind: str, protocol: str) -> None:
    users = {
        name
        for name in catalogue.names(kind)
        if issubclass(catalogue.find(kind, name), getattr(capabilities, protocol))
    }
    assert users == set(USERS[kind, protocol].split())


def test_a_protocol_with_an_attribute_needs_an_instance() -> None:
    assert isinstance(catalogue.find("objective", "theia")(), capabilities.Calibrated)
    assert not isinstance(catalogue.find("objective", "kd")(), capabilities.Calibrated)


TAGGED: dict[tuple[str, Tag], str] = {
    ("objective", "aligned_tokens"): "dskd dskd_cma gold multilevel_ot uld",
    ("objective", "related_positions"): "multilevel_ot",
    ("scheme", "changed_inputs"): "adaad dpkd iad iad_ii krd momentum_contrast views",
    ("scheme", "synthetic_labels"): "cmi deep_inversion fast_data_free",
    ("scheme", "new_architecture"): "filter_kd reused_classifier sandwich",
    ("scheme", "predictions_by_index"): "filter_kd",
    ("teacher", "stateful"): "ema previous_epoch",
    ("teacher", "merged_classes"): "amalgamated",
    ("teacher", "disjoint_data"): "private_votes",
}
"""Kind and tag -> names of all methods that have it."""


@pytest.mark.parametrize(("kind", "tag"), TAGGED)
def test_tags(kind: str, tag: Tag) -> None:
    users = {name for name in catalogue.names(kind) if has_tag(catalogue.find(kind, name), tag)}
    assert users == set(TAGGED[kind, tag].split())


def test_a_subclass_with_its_own_card_inherits_the_tags() -> None:
    own = type("Own", (catalogue.find("teacher", "ema"),), {"card": Card("own")})
    assert has_tag(own, "stateful")


def test_a_class_without_a_card_has_no_tag() -> None:
    assert not has_tag(object(), "stateful")
    assert not has_tag(Teacher, "stateful")


@pytest.mark.parametrize("base", [Objective, Scheme, Teacher, Balance])
@pytest.mark.parametrize("name", REMOVED)
def test_an_attribute_that_a_protocol_replaced_is_an_error(base: type, name: str) -> None:
    with pytest.raises(TypeError, match=rf"Own\.{name}: this attribute has no effect\. ") as info:
        type("Own", (base,), {name: True})
    assert REMOVED[name] in str(info.value)


def test_a_property_of_that_name_is_allowed() -> None:
    cls = type("Own", (Scheme,), {"changes": property(lambda self: 1), "card": Card("own")})
    assert issubclass(cls, Scheme)


def test_the_base_class_of_label_losses_names_its_replacement() -> None:
    with pytest.raises(ImportError, match=r"items = Items\(labelled=True\)"):
        getattr(core, "LabelObjective")  # noqa: B009
