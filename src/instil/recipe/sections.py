"""The recipe: its sections, their keys, types and defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from instil.cards import NonNegativeInt
from instil.data.paths import located
from instil.recipe.base_sections import (
    MetricConfig,
    Name,
    OpenSection,
    Section,
    TaskConfig,
)
from instil.recipe.data_sections import (
    AugmentConfig,
    DataConfig,
    SurrogateConfig,
    TeacherDataConfig,
)
from instil.recipe.input_section import InputConfig
from instil.recipe.model_sections import ModelConfig, TeacherConfig
from instil.recipe.scheme_sections import EnsembleConfig, SchemeConfig, StoreConfig
from instil.recipe.search_sections import SearchConfig
from instil.recipe.training_sections import (
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
    WeightingConfig,
)

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "EnsembleConfig",
    "InputConfig",
    "MetricConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OpenSection",
    "OptimizerConfig",
    "Recipe",
    "SchemeConfig",
    "SearchConfig",
    "Section",
    "StoreConfig",
    "SurrogateConfig",
    "TaskConfig",
    "TeacherConfig",
    "TeacherDataConfig",
    "TrainConfig",
    "WeightingConfig",
]


def _require_distinct(seeds: list[int]) -> list[int]:
    repeated = [seed for seed in seeds if seeds.count(seed) > 1]
    if repeated:
        raise ValueError(
            f"the seed {repeated[0]} is given twice. Expected different seeds: the second run "
            "would be a copy of the first"
        )
    return seeds


def _require_objective(objectives: dict[str, ObjectiveConfig]) -> dict[str, ObjectiveConfig]:
    if not objectives:
        raise ValueError(
            "no loss. Expected at least one objective, such as {kd: {}};"
            " `instil methods` lists them"
        )
    return objectives


def _require_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError(
            f"auto, cpu, cuda, cuda:1 (the second GPU) or mps was expected, not '{name}'"
        )
    return name


Seeds = Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(_require_distinct)]


class Recipe(Section):
    """An experiment: teacher, student, data, losses and training."""

    name: str = "recipe"
    """Name of the experiment. Default: the name of the file."""

    folder: str = "."
    """Folder of relative paths and of the user's modules. Default: the folder of the file."""

    imports: list[str] = []
    """Modules of the user that define methods, sources or networks."""

    task: TaskConfig = TaskConfig()
    """Task of the student."""

    metrics: dict[Name, MetricConfig] = {}
    """Metrics in addition to those of the task, by name; also a list of names."""

    headline: str | None = None
    """Metric that compares the students: one of ``metrics``. Null: that of the task."""

    data: DataConfig
    """Training, validation and test data."""

    teacher: TeacherConfig | list[TeacherConfig] | None = None
    """The teacher, or a list of several. Null: no teacher."""

    ensemble: EnsembleConfig | None = None
    """Combination of several teachers. Null: their mean."""

    store: StoreConfig | None = None
    """Recorded teacher outputs. Null: the teacher is evaluated in every step."""

    student: ModelConfig
    """The student."""

    scheme: SchemeConfig = SchemeConfig()
    """Training scheme."""

    objectives: Annotated[dict[Name, ObjectiveConfig], AfterValidator(_require_objective)]
    """Losses of the student, by name."""

    balance: WeightingConfig | None = None
    """Method that balances the losses. Null: fixed weights."""

    train: TrainConfig = TrainConfig()
    """Training of the student."""

    teacher_train: TrainConfig | None = None
    """Training of the teacher. Keys that are left out are those of ``train``."""

    stages: list[dict[str, Any]] = []
    """Trainings one after another; each stage changes keys of the recipe."""

    device: Annotated[str, AfterValidator(_require_device)] = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``."""

    seeds: Seeds = [0, 1, 2]
    """Seeds; all students are trained once per seed."""

    baselines: list[str] = []
    """Students to compare with. Default: those of the task."""

    exported_arm: str = "distilled"
    """Student that is saved and exported: ``distilled`` or one of ``baselines``."""

    export: bool = True
    """Whether the student is exported to ONNX. Default: whether the task has an export."""

    search: SearchConfig | None = None
    """Candidates of ``instil search``. A run does not read them."""

    @property
    def teachers(self) -> list[TeacherConfig]:
        """All teachers. Each replica is an entry of its own."""
        if self.teacher is None:
            return []
        teachers: list[TeacherConfig] = []
        for config in self.teacher if isinstance(self.teacher, list) else [self.teacher]:
            teachers += [config] * config.num_replicas
        return teachers

    @property
    def has_stages(self) -> bool:
        """Whether the student is trained several times, in stages or in rounds of pruning."""
        return bool(self.stages) or self.student.rounds > 1

    def locate(self, path: str) -> Path:
        """Return a file or folder of the recipe's folder, or else of the working directory.

        Raises:
            MissingPath: if there is none.
        """
        return located(path, Path(self.folder))
