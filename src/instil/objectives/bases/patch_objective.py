"""Base class of losses on the patch tokens of several teachers."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Objective, Outputs, item_weights
from instil.functional.ensembles import members
from instil.functional.feature_maps import patch_tokens
from instil.functional.pairs import describe_pair, feature_levels
from instil.items import Items
from instil.modules.adapters import Adapter
from instil.modules.normalizers import Normalizer

CalibrationSamples = Annotated[
    int,
    Ge(0),
    Doc(
        "number of samples whose teacher outputs give the statistics before training; 0: "
        "statistics of the first batch"
    ),
]


class PatchObjective(Objective):
    """Base class of losses on the deepest level of the student and of each teacher.

    The student's level passes an adapter for each teacher. The loss is the mean over the teachers,
    the ``members`` of an ensemble.

    Attributes:
        matched: pair of indices (student level, teacher level) of each teacher, after ``build``.
        plan: description of each teacher's pair, after ``build``.
        adapters: adapter of each teacher.
        targets: normalizer of each teacher's patch tokens.
    """

    needs: ClassVar = {"student": (("features",),), "teacher": (("members", "features"),)}
    items = Items(per_sample=True)

    def __init__(self, calibration_samples: CalibrationSamples = 1000) -> None:
        super().__init__()
        self.calibration_samples = calibration_samples
        self.matched: list[tuple[int, int]] = []
        self.plan: list[str] = []
        self.adapters = nn.ModuleList()
        self.targets = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build an adapter and a normalizer for each teacher, from a dry batch.

        Raises:
            ValueError: if a teacher has no features.
        """
        student_levels = feature_levels(student)
        self.matched = []
        self.plan = []
        self.adapters = nn.ModuleList()
        self.targets = nn.ModuleList()
        for index, member in enumerate(members(teacher)):
            if "features" not in member:
                raise ValueError(
                    f"teacher {index} gives {', '.join(member)}, and no features; name the module "
                    "that gives them in its taps"
                )
            teacher_levels = feature_levels(member)
            pair = len(student_levels) - 1, len(teacher_levels) - 1
            adapter = Adapter(student_levels[-1], teacher_levels[-1])
            self.matched.append(pair)
            self.adapters.append(adapter)
            self.targets.append(self.make_normalizer(patch_tokens(teacher_levels[-1])))
            self.plan.append(
                describe_pair(pair, student_levels[-1], teacher_levels[-1], str(adapter))
            )

    def make_normalizer(self, tokens: Tensor) -> nn.Module:
        """Build the normalizer of a teacher's tokens, from tokens (N, ..., D) of a dry batch."""
        return nn.Identity()

    def normalizers(self) -> list[nn.Module]:
        """Normalizers of the teachers' outputs, in the order of ``teacher_features``."""
        return list(self.targets)

    def teacher_features(self, teacher: Outputs) -> list[Tensor]:
        """Tokens (N, ..., D) of the teachers, one for each normalizer."""
        return [patch_tokens(feature_levels(member)[-1]) for member in members(teacher)]

    def collect_statistics(self, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        weight = item_weights(batch)
        counted = weight.flatten(1).amax(1) > 0 if weight.ndim > 1 else weight > 0
        rows = {}
        pairs = zip(self.normalizers(), self.teacher_features(teacher), strict=True)
        for index, (normalizer, tokens) in enumerate(pairs):
            if isinstance(normalizer, Normalizer):
                rows[str(index)] = normalizer.moments(tokens[counted])
        return rows

    def load_statistics(self, rows: dict[str, Tensor]) -> None:
        for index, normalizer in enumerate(self.normalizers()):
            if isinstance(normalizer, Normalizer):
                normalizer.load_statistics(rows[str(index)])

    def matched_pairs(
        self, student: Outputs, teacher: Outputs
    ) -> list[tuple[Tensor, Tensor, nn.Module]]:
        """Patch tokens of each teacher.

        Returns:
            For each teacher: the student's adapted patch tokens (N, L, D), the teacher's patch
            tokens (N, L, D), and the normalizer of the latter.
        """
        level = feature_levels(student)[-1]
        sides = zip(self.adapters, self.targets, members(teacher), strict=True)
        pairs = []
        for adapter, target, member in sides:
            teacher_tokens = patch_tokens(feature_levels(member)[-1])
            pairs.append((patch_tokens(adapter(level)), teacher_tokens, target))
        return pairs
