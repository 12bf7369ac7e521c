"""Paired comparison of the results of one setting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from instil.comparison.results import SettingGroup, TrainedResult
from instil.search.evidence import compare_finalists


@dataclass(frozen=True)
class PairedEvidence:
    """Differences of a result from the references that share student, training and seeds.

    Attributes:
        differences: reference -> mean, interval and Holm-corrected p-value.
        is_best: the test scores do not separate the result from the best of its peers. None: it
            has no peers.
    """

    differences: dict[str, dict[str, Any]]
    is_best: bool | None


def paired_evidence(group: SettingGroup) -> list[PairedEvidence]:
    """Compare the results of a setting, paired by seed.

    Args:
        group: results of one setting.

    Returns:
        The evidence of each result, in the order of the group.
    """
    evidence = [PairedEvidence({}, None)] * len(group.results)
    for peers in _peers(group.results):
        scores = {group.results[index].method: group.results[index].values for index in peers}
        if len(scores) < 2:
            continue
        winner = group.results[peers[0]].method
        differences, best = compare_finalists(scores, winner, group.setting.higher_is_better)
        for index in peers:
            method = group.results[index].method
            if evidence[index].is_best is None:
                evidence[index] = PairedEvidence(differences[method], method in best)
    return evidence


def _peers(results: Sequence[TrainedResult]) -> list[list[int]]:
    """Return sets of comparable results, as indices with the best first.

    Results of several runs are compared across runs if no method occurs twice, and within each run
    otherwise.
    """
    blocks: dict[Any, list[int]] = defaultdict(list)
    for index, row in enumerate(results):
        if row.kind != "teacher":
            blocks[row.student, row.training, row.seeds].append(index)
    peers = []
    for block in blocks.values():
        methods = [results[index].method for index in block]
        if len(set(methods)) == len(methods):
            peers.append(block)
        else:
            peers += _by_folder(results, block)
    return peers


def _by_folder(results: Sequence[TrainedResult], block: Sequence[int]) -> list[list[int]]:
    folders: dict[Any, list[int]] = defaultdict(list)
    for index in block:
        row = results[index]
        for folder in (row.folder, *row.copies):
            folders[folder].append(index)
    return list(folders.values())
