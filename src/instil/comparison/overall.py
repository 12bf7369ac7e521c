"""Comparison of the methods that occur in several settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instil.comparison.ranks import (
    FEWEST_METHODS,
    RankTest,
    average_ranks,
    rank_test,
    wilcoxon_holm,
)
from instil.comparison.resampling import (
    Array,
    mean_difference,
    performance_profile,
    probability_of_improvement,
)
from instil.comparison.results import Setting, SettingGroup, TrainedResult
from instil.search.evidence import COMPARED

FACTORS = np.linspace(1, 4, 121)
"""Factors of the performance profile."""


@dataclass(frozen=True)
class Block:
    """Results of one setting, student, length of training and set of seeds.

    Attributes:
        setting: task, data and metric.
        student: network in words.
        seeds: seeds that all results share.
        scores: scores of each method in the order of the seeds.
    """

    setting: Setting
    student: str
    seeds: tuple[int, ...]
    scores: Mapping[str, tuple[float, ...]]

    @property
    def title(self) -> str:
        """Name of the block for readers."""
        setting = self.setting
        return f"{setting.task}, {setting.data} ({setting.metric}), {self.student}"


@dataclass(frozen=True)
class Overall:
    """Statistics over blocks.

    Attributes:
        blocks: compared blocks.
        methods: methods that occur in all blocks, the best average rank first.
        mean_ranks: average rank of each method; 1 is the best.
        ranks: Friedman and Nemenyi tests; None for two methods.
        wilcoxon: p-values against the best-ranked method, Holm.
        gains: reference -> method -> mean paired difference over the blocks whose metric is a
            fraction.
        improvements: reference -> method -> probability of improvement.
        profile: shares (methods, factors) of the performance profile; None without costs.
        band: ends of its intervals; None if a block has one seed.
        notes: results that were left out, in sentences.
    """

    blocks: tuple[Block, ...]
    methods: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    ranks: RankTest | None
    wilcoxon: list[float | None]
    gains: dict[str, dict[str, Any]]
    improvements: dict[str, dict[str, Any]]
    profile: Array | None
    band: tuple[Array, Array] | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the statistics for ``--json``."""
        ranks = self.ranks
        return {
            "blocks": [{"block": block.title, "seeds": list(block.seeds)} for block in self.blocks],
            "methods": list(self.methods),
            "mean_ranks": list(self.mean_ranks),
            "friedman_p": None if ranks is None else ranks.p,
            "critical_difference": None if ranks is None else ranks.critical_difference,
            "not_separated": [self._names(group) for group in ranks.groups] if ranks else [],
            "wilcoxon_holm_p": self.wilcoxon,
            "gains": self.gains,
            "probability_of_improvement": self.improvements,
            "notes": list(self.notes),
        }

    def _names(self, indices: Sequence[int]) -> list[str]:
        return [self.methods[index] for index in indices]


def compare_overall(groups: Sequence[SettingGroup]) -> Overall | str:
    """Compare the methods that occur in all blocks.

    Args:
        groups: results by setting.

    Returns:
        The statistics, or a sentence that explains why there are none.
    """
    blocks, notes = _blocks(groups)
    if len(blocks) < 2:
        return (
            "Statistics over tasks need two or more settings in which two or more methods share "
            "student, length of training and seeds."
        )
    methods, compared = _complete_part(blocks)
    if not methods:
        return (
            "Statistics over tasks need two or more methods that occur in two or more settings; "
            f"no two of the {len(blocks)} settings share two methods."
        )
    if len(compared) < len(blocks):
        left_out = len(blocks) - len(compared)
        notes.append(f"{left_out} of {len(blocks)} settings lack one of these methods.")
    blocks = compared
    means = np.array([[np.mean(_signed(block, name)) for name in methods] for block in blocks])
    order = np.argsort(average_ranks(means), kind="stable")
    methods = [methods[index] for index in order]
    means = means[:, order]
    references = [name for name in COMPARED if name in methods] or [methods[-1]]
    profile, band = _profile(blocks, methods)
    return Overall(
        tuple(blocks),
        tuple(methods),
        tuple(average_ranks(means)),
        rank_test(means) if len(methods) >= FEWEST_METHODS else None,
        wilcoxon_holm(means, control=0),
        _gains(references, methods, blocks),
        {name: _against(name, methods, blocks, probability_of_improvement) for name in references},
        profile,
        band,
        tuple(notes),
    )


def _blocks(groups: Sequence[SettingGroup]) -> tuple[list[Block], list[str]]:
    """Return blocks with two or more methods, and notes on results that are ambiguous."""
    blocks, notes = [], []
    for group in groups:
        members: dict[Any, dict[str, list[TrainedResult]]] = defaultdict(lambda: defaultdict(list))
        for row in group.results:
            if row.kind != "teacher":
                members[row.student, row.training, row.seeds][row.method].append(row)
        for (student, _, seeds), by_method in members.items():
            for method, rows in by_method.items():
                if len(rows) > 1:
                    notes.append(
                        f"{method} has {len(rows)} results on {group.setting.data} with {student}, "
                        "so it is left out there."
                    )
            scores = {name: rows[0].values for name, rows in by_method.items() if len(rows) == 1}
            if len(scores) > 1:
                blocks.append(Block(group.setting, student, seeds, scores))
    return blocks, notes


def _complete_part(blocks: Sequence[Block]) -> tuple[list[str], list[Block]]:
    """Return methods, and the blocks that have all of them, with the largest product of counts.

    The tests need a score of every method in every block. The candidates are the methods that
    occur in at least n blocks, for each n. More methods win a tie.
    """
    counts: dict[str, int] = {}
    for block in blocks:
        for method in block.scores:
            counts[method] = counts.get(method, 0) + 1
    best: tuple[list[str], list[Block]] = ([], [])
    for least in sorted(set(counts.values()), reverse=True):
        methods = [name for name, count in counts.items() if count >= least]
        complete = [block for block in blocks if set(methods) <= set(block.scores)]
        is_larger = len(methods) * len(complete) >= len(best[0]) * len(best[1])
        if len(methods) > 1 and len(complete) > 1 and is_larger:
            best = methods, complete
    return best


def _gains(
    references: Sequence[str], methods: Sequence[str], blocks: Sequence[Block]
) -> dict[str, dict[str, Any]]:
    """Return mean differences; points of different units have no common mean."""
    fractions = [block for block in blocks if block.setting.is_fraction]
    if not fractions:
        return {}
    return {name: _against(name, methods, fractions, mean_difference) for name in references}


def _signed(block: Block, method: str) -> Array:
    """Return the scores of a method, higher is better."""
    sign = 1 if block.setting.higher_is_better else -1
    return sign * np.array(block.scores[method])


def _against(
    reference: str, methods: Sequence[str], blocks: Sequence[Block], statistic: Any
) -> dict[str, Any]:
    control = [_signed(block, reference) for block in blocks]
    return {
        name: statistic([_signed(block, name) for block in blocks], control)
        for name in methods
        if name != reference
    }


def _profile(
    blocks: Sequence[Block], methods: Sequence[str]
) -> tuple[Array | None, tuple[Array, Array] | None]:
    """Return the profile over the blocks whose metric has a cost: an error, or a share below 1."""
    costs = []
    for block in blocks:
        scores = np.stack([np.array(block.scores[name]) for name in methods], axis=1)
        cost = 1 - scores if block.setting.higher_is_better else scores
        is_cost = block.setting.is_fraction or not block.setting.higher_is_better
        if is_cost and (cost >= 0).all():
            costs.append(cost)
    if not costs:
        return None, None
    return performance_profile(costs, FACTORS)
