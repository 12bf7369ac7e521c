"""Labels, colours and texts of results in tables and plots."""

from __future__ import annotations

from collections.abc import Sequence

from instil.comparison.results import Setting, SettingGroup
from instil.report.names import ARM_NAMES
from instil.report.plots import COLORS, OTHER_COLORS, SYMBOLS
from instil.report.quantities import amount, points

PALETTE = (COLORS["distilled"], *OTHER_COLORS)
SHOWN = 8
"""Largest number of results in a plot."""


def setting_titles(groups: Sequence[SettingGroup]) -> list[str]:
    """Return a title for each setting: its task, data and metric.

    Settings that differ in other options, or in the content of their data, have these details too.
    """
    settings = [group.setting for group in groups]
    titles = [f"{one.task}, {one.data}, test {one.metric}" for one in settings]
    return [
        f"{title} ({one.details})" if titles.count(title) > 1 and one.details else title
        for title, one in zip(titles, settings, strict=True)
    ]


def result_labels(group: SettingGroup) -> list[str]:
    """Return a label for each result that is unique in its group.

    It is the method, with the student, the length of training and the folder where needed.
    """
    labels = [method_label(row.method) for row in group.results]
    for details in (
        [row.student for row in group.results],
        [row.training for row in group.results],
        [row.folder.name for row in group.results],
        [str(row.folder) for row in group.results],
    ):
        pairs = list(zip(labels, details, strict=True))
        details_by_label: dict[str, set[str]] = {}
        for label, detail in pairs:
            details_by_label.setdefault(label, set()).add(detail)
        # A detail that all results of a label share would only make it longer.
        labels = [
            f"{label}, {detail}" if detail and len(details_by_label[label]) > 1 else label
            for label, detail in pairs
        ]
    return labels


def method_label(method: str) -> str:
    """Return a method, baseline or the teacher as readers know it."""
    return ARM_NAMES.get(method, method)


def colors(methods: Sequence[str]) -> list[str]:
    """Return a colour for each of some methods, in their order."""
    return [
        COLORS.get(method, PALETTE[index % len(PALETTE)]) for index, method in enumerate(methods)
    ]


def symbol(index: int) -> str:
    """Return the marker of the result at an index."""
    return SYMBOLS[index % len(SYMBOLS)]


def score_text(setting: Setting, value: float) -> str:
    """Return a score of a setting, in percent where the metric is a fraction."""
    return amount(value, setting.is_fraction)


def interval_text(setting: Setting, ends: Sequence[float] | None) -> str:
    """Return the ends of an interval; empty without one."""
    if ends is None:
        return ""
    low, high = (amount(end, setting.is_fraction, unit=False) for end in ends)
    return f"{low} to {high}"


def difference_text(setting: Setting, value: float) -> str:
    """Return a difference of scores, in points where the metric is a fraction."""
    return points(value, setting.is_fraction)
