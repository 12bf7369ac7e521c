"""Errors for names of the protocol that have been moved or replaced."""

from __future__ import annotations

_SHARDING = "Define sharding_obstacle() (instil.capabilities.RestrictsSharding)"

REMOVED = {
    "per_sample": "Write items = Items(per_sample=True) (instil.items.Items)",
    "views_per_sample": "Write Card(views_per_sample=...)",
    "calibration_samples": "Define num_calibration_samples() (instil.capabilities.Calibrated)",
    "handles_token_alignment": 'Write Card(tags=("aligned_tokens",))',
    "supports_sharding": _SHARDING,
    "handles_uncounted": "Override item_mask(batch) and return None",
    "handles_unlabelled": "Override item_mask(batch)",
    "relates_positions": 'Write Card(tags=("related_positions",))',
    "unsupported_roles": "Define rejected_roles() (instil.capabilities.RejectsRoles)",
    "needs_input_grad": _SHARDING,
    "synthetic_inputs": "Define synthetic_images(batch) (instil.capabilities.SynthesizesImages)",
    "synthetic_labels": 'Write Card(tags=("synthetic_labels",))',
    "on_policy_text": "Define student_text(batch) (instil.capabilities.GeneratesText)",
    "exports_new_architecture": 'Write Card(tags=("new_architecture",))',
    "predicts_by_index": 'Write Card(tags=("predictions_by_index",))',
    "changes": 'Write Card(tags=("stateful",))',
    "merges_class_spaces": 'Write Card(tags=("merged_classes",))',
    "disjoint_training_data": 'Write Card(tags=("disjoint_data",))',
    "missing_role_hint": "Define missing_role_remedy() (instil.capabilities.ExplainsMissingRoles)",
}
"""Removed class attribute -> what to write instead."""

MOVED = {
    "instil.capabilities": "Perturbation",
    "instil.cards": "at_progress",
    "instil.functional.keyed_random": "inverse_cdf_sample keyed_normal keyed_uniform",
    "instil.items": "drop_gradient drop_unlabelled_gradient every_item_counts "
    "graph_preserving_zero replace_invalid replace_invalid_outputs replace_uncounted",
    "instil.roles": "SHARED_ROLES SIGNALS LazyOutputs Projection Sampled Top",
}
"""New module -> names that ``instil.core`` had."""


def reject_removed(cls: type) -> None:
    """Check that a class does not set a removed attribute.

    Raises:
        TypeError: if it does; the message names the replacement.
    """
    for name, remedy in REMOVED.items():
        if isinstance(vars(cls).get(name), (bool, int, str, dict)):
            raise TypeError(f"{cls.__name__}.{name}: this attribute has no effect. {remedy}.")


def explain_moved(name: str) -> None:
    """Explain a name that ``instil.core`` had.

    Raises:
        ImportError: if it had the name; the message names the replacement.
    """
    if name == "LabelObjective":
        raise ImportError(
            "instil.core.LabelObjective has been removed. Derive from Objective and write "
            "items = Items(labelled=True) (instil.items.Items)."
        )
    for module, names in MOVED.items():
        if name in names.split():
            raise ImportError(f"instil.core.{name} has moved. Import it from {module}.")
