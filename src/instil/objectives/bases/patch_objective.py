"""Base class of losses on the patch tokens of several teachers."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Objective, Outputs, item_weights
from instil.functional.ensembles import members
from instil.functional.feature_maps import patch_tokens
from instil.functional.pairs import describe_pair, feature_levels
from instil.modules.adapters import Adapter
from instil.modules.normalizers import Normalizer


class PatchObjective(Objective):
    """A loss of the student's deepest stage, through an adapter for each teacher, and the deepest stage of each teacher; mean over the teachers.

    ``calibration_samples``: samples of which the teachers' statistics are taken before training; 0: those of the first batch.

    Several teachers are an ``Ensemble``'s ``members``. ``describe_pair`` says in words, after ``build``, how each teacher is met.
    """

    needs: ClassVar = {"student": (("features",),), "teacher": (("members", "features"),)}
    per_sample = True

    def __init__(self, calibration_samples: Annotated[int, Ge(0)] = 1000) -> None:
        super().__init__()
        self.calibration_samples = calibration_samples
        self.matched: list[tuple[int, int]] = []  # of each teacher: student stage, teacher stage
        self.plan: list[str] = []
        self.adapters = nn.ModuleList()
        self.targets = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """One adapter and one preparation of the target a teacher. Raises ValueError for a teacher that gives no features."""
        mine = feature_levels(student)
        self.matched, self.plan, self.adapters, self.targets = (
            [],
            [],
            nn.ModuleList(),
            nn.ModuleList(),
        )
        for number, member in enumerate(members(teacher)):
            if "features" not in member:
                raise ValueError(
                    f"teacher {number} gives {', '.join(member)}, and no features; name the module that gives them in its taps"
                )
            theirs = feature_levels(member)
            pair = len(mine) - 1, len(theirs) - 1
            made = Adapter(mine[-1], theirs[-1])
            self.matched.append(pair)
            self.adapters.append(made)
            self.targets.append(self.make_normalizer(patch_tokens(theirs[-1])))
            self.plan.append(describe_pair(pair, mine[-1], theirs[-1], str(made)))

    def make_normalizer(self, tokens: Tensor) -> nn.Module:
        """What a teacher's patches (N, L, D) go through before they are compared."""
        return nn.Identity()

    def normalizers(self) -> list[nn.Module]:
        """What brings the teachers' outputs to a common scale, in the order of ``teacher_features``."""
        return list(self.targets)

    def teacher_features(self, teacher: Outputs) -> list[Tensor]:
        """The tokens (N, ..., D) that ``normalizers`` are for."""
        return [patch_tokens(feature_levels(member)[-1]) for member in members(teacher)]

    def collect_statistics(self, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        counted = (
            item_weights(batch).flatten(1).amax(1) > 0
            if item_weights(batch).ndim > 1
            else item_weights(batch) > 0
        )
        sides = enumerate(zip(self.normalizers(), self.teacher_features(teacher), strict=True))
        return {
            str(number): scale.moments(tokens[counted])
            for number, (scale, tokens) in sides
            if isinstance(scale, Normalizer)
        }

    def load_statistics(self, rows: dict[str, Tensor]) -> None:
        for number, scale in enumerate(self.normalizers()):
            if isinstance(scale, Normalizer):
                scale.load_statistics(rows[str(number)])

    def matched_pairs(
        self, student: Outputs, teacher: Outputs
    ) -> list[tuple[Tensor, Tensor, nn.Module]]:
        """Of each teacher: the student's adapted patches and the teacher's (N, L, D), and what ``make_normalizer`` made for the teacher's."""
        mine = feature_levels(student)[-1]
        sides = zip(self.adapters, self.targets, members(teacher), strict=True)
        return [
            (patch_tokens(made(mine)), patch_tokens(feature_levels(member)[-1]), target)
            for made, target, member in sides
        ]
