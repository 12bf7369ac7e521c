"""Comparison of run folders and search folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.comparison.evidence import paired_evidence
from instil.comparison.overall import Overall, compare_overall
from instil.comparison.page import write_page
from instil.comparison.reading import read_results
from instil.comparison.reported import ReportedBenchmark, select_reported
from instil.comparison.results import SettingGroup, group_by_setting


@dataclass(frozen=True)
class Comparison:
    """Results by setting, with statistics over settings.

    Attributes:
        groups: results by setting.
        overall: statistics over settings, or the sentence that explains their absence.
        reported: reported benchmark and the key of a pair.
    """

    groups: tuple[SettingGroup, ...]
    overall: Overall | str
    reported: tuple[ReportedBenchmark, str | None] | None = None

    def write(self, path: Path) -> Path:
        """Write the page and return its path."""
        return write_page(path, self.groups, self.overall, self.reported)

    def to_json(self) -> dict[str, Any]:
        """Return all facts for ``--json``; reported results are under a key of their own."""
        settings = []
        for group in self.groups:
            rows = []
            for row, evidence in zip(group.results, paired_evidence(group), strict=True):
                comparison = {"differences": evidence.differences, "is_best": evidence.is_best}
                rows.append(row.to_json() | comparison)
            setting = group.setting
            settings.append(
                {
                    "task": setting.task,
                    "data": setting.data,
                    "details": setting.details,
                    "metric": setting.metric,
                    "higher_is_better": setting.higher_is_better,
                    "results": rows,
                }
            )
        overall = self.overall
        statistics = {"absent": overall} if isinstance(overall, str) else overall.to_json()
        reported = None if self.reported is None else self.reported[0].model_dump(mode="json")
        return {"settings": settings, "overall": statistics, "reported": reported}


def compare(
    folders: Sequence[str | Path], reported: str | None = None, any_version: bool = False
) -> Comparison:
    """Compare runs and searches.

    Args:
        folders: folders of ``instil run`` and ``instil search``.
        reported: name of a benchmark with results of papers, and optionally a pair of networks,
            such as ``cifar100/resnet56-resnet20``.
        any_version: accept results of different versions of the package.

    Raises:
        ValueError: for a folder without a result, results of several versions, or an unknown
            benchmark.
    """
    selection = None if reported is None else select_reported(reported)
    results = read_results([Path(folder) for folder in folders], any_version)
    groups = group_by_setting(results)
    return Comparison(tuple(groups), compare_overall(groups), selection)
