"""State of a search on the disk: settings, arms and schedule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from instil.cards.closest import did_you_mean
from instil.files.json_files import write_json
from instil.search.arms import Arm
from instil.search.prior import PRIORS, check_prior
from instil.search.rounds import Schedule
from instil.search.sampling import Sampler
from instil.search.subjects import KEEP, check_subjects

STATE = "study.json"
Strategy = Literal["auto", "halving", "seeds", "random", "exhaustive"]
MAX_COST = 20.0
"""Time of a step of a method, in steps of the recipe's own one, above which it is refused."""


@dataclass(frozen=True)
class Settings:
    """Settings of a search.

    Attributes:
        over: ``methods``, ``options``, ``students`` and ``teachers``, as far as they combine.
        candidates: names of objectives and schemes. None: the whole catalogue.
        max_steps: optimizer steps of all trainings of the student. None: no limit.
        max_runs: the same, in trainings of the recipe's length.
        max_seconds: the same, in seconds.
        strategy: successive halving over steps or over seeds, random search of the same cost, or
            all arms to the end. ``auto``: see ``resolve_settings``.
        sampler: sampler of options.
        num_trials: trials of each arm per round; 1 without ``options``.
        num_seeds: new seeds of the final trainings.
        seed: seed of all random choices of the search.
        students: families of students, or models. None: the default families.
        limits: largest latency (ms), size and memory (bytes) and number of parameters of a student.
        keep: share of the teacher's quality that the chosen student keeps.
        prior: ``model`` or a file of coefficients: order of the methods by predicted gain, for
            small budgets and short rounds. ``auto``: see ``resolve_settings``.
        num_folds: folds of the labelled training samples for trials that are not final; 1: none.
        teachers: sections or changes of teachers by name, see ``parse_teachers``.
        max_cost: largest time of a step of a method that is not refused, in the recipe's steps.
        num_refinements: largest number of students between the sizes of the candidates.
    """

    over: tuple[str, ...] = ("methods",)
    candidates: tuple[str, ...] | None = None
    max_steps: int | None = None
    max_runs: int | None = None
    max_seconds: float | None = None
    strategy: Strategy = "auto"
    sampler: Sampler = "tpe"
    num_trials: int = 4
    num_seeds: int = 3
    seed: int = 0
    students: tuple[str, ...] | None = None
    limits: dict[str, float] = field(default_factory=dict)
    keep: float = KEEP
    prior: str = "auto"
    teachers: dict[str, Any] | None = None
    num_folds: int = 1
    max_cost: float = MAX_COST
    num_refinements: int = 3

    def __post_init__(self) -> None:
        check_subjects(self)
        for option, value, names in (
            ("--strategy", self.strategy, get_args(Strategy)),
            ("--sampler", self.sampler, get_args(Sampler)),
        ):
            if value not in names:
                raise ValueError(
                    f"{option}: unknown name '{value}'. Expected {' or '.join(names)}."
                    f"{did_you_mean(value, names)}"
                )
        check_prior(self.prior)
        limits = (self.max_steps, self.max_runs, self.max_seconds)
        if sum(limit is not None for limit in limits) > 1:
            raise ValueError(
                "--budget: several limits. Expected one of --budget, --steps and --runs. Remove "
                "the others"
            )
        if self.strategy == "exhaustive" and (self.has_options or any(limits)):
            raise ValueError(
                "--strategy exhaustive: every method is trained with its published options and "
                "the recipe's length. Expected --over methods and no budget"
            )
        if self.strategy == "seeds" and (self.over != ("methods",) or self.num_folds > 1):
            raise ValueError(
                "--strategy seeds: every training has the published options and its own seed. "
                "Expected --over methods and no folds"
            )
        if self.candidates is not None and "methods" not in self.over:
            raise ValueError(
                "--candidates: these are methods. Expected --over methods or --over "
                f"methods,options, got --over {','.join(self.over)}"
            )

    @property
    def has_prior(self) -> bool:
        """Whether a model of gain orders the methods."""
        is_on = self.prior not in ("auto", "none")
        return is_on and "methods" in self.over and not self.has_students

    @property
    def prior_file(self) -> str | None:
        """File of the model of gain; None: the shipped model."""
        return None if self.prior in PRIORS else self.prior

    @property
    def has_options(self) -> bool:
        """Whether options of the methods are searched."""
        return "options" in self.over

    @property
    def has_students(self) -> bool:
        """Whether students are searched."""
        return "students" in self.over

    @property
    def is_joint(self) -> bool:
        """Whether students are searched first, and then methods for the best ones."""
        return self.has_students and "methods" in self.over

    @property
    def has_refinements(self) -> bool:
        """Whether students between the sizes of the candidates join the last round."""
        families = {"networks", "teacher"} & set(self.students or ("networks",))
        has_rounds = self.has_students and not self.is_joint and self.strategy != "random"
        return has_rounds and bool(families)

    @property
    def has_teachers(self) -> bool:
        """Whether teachers are searched."""
        return "teachers" in self.over


@dataclass(frozen=True)
class State:
    """Everything that the trials of a search depend on.

    Attributes:
        settings: the settings.
        arms: candidates and reference arms.
        refused: reason by name of a method that does not fit.
        schedule: rounds.
        num_threads: threads of every training.
        data_hash: fingerprint of training and validation samples.
        signals: plain data of ``TaskSignals``; empty for a search of an earlier version.
        teacher_costs: size and latency of the teacher, in a search over students.
        num_jobs: processes of the first start, which the time of the search is shared by.
        recipe_hash: fingerprint of the recipe; empty for a search of an earlier version.
        input_hashes: fingerprints of modules of the user, networks, weights and the data of
            ``teacher.data`` and ``data.surrogate``, by description.
        test_hash: fingerprint of the test samples; empty for a search of an earlier version.
    """

    settings: Settings
    arms: tuple[Arm, ...]
    refused: dict[str, str]
    schedule: Schedule
    num_threads: int
    data_hash: str
    signals: dict[str, Any] = field(default_factory=dict)
    teacher_costs: dict[str, Any] = field(default_factory=dict)
    num_jobs: int = 1
    recipe_hash: str = ""
    input_hashes: dict[str, str] = field(default_factory=dict)
    test_hash: str = ""

    def write(self, folder: Path, name: str = STATE) -> None:
        """Write the state into a file.

        Args:
            folder: folder of the search.
            name: name of the file.
        """
        content = {
            "settings": asdict(self.settings),
            "arms": [arm.to_json() for arm in self.arms],
            "refused": self.refused,
            "schedule": self.schedule.to_json(),
            "num_threads": self.num_threads,
            "data_hash": self.data_hash,
            "signals": self.signals,
            "teacher_costs": self.teacher_costs,
            "num_jobs": self.num_jobs,
            "recipe_hash": self.recipe_hash,
            "input_hashes": self.input_hashes,
            "test_hash": self.test_hash,
        }
        write_json(folder / name, content)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> State:
        """Build the state from plain data."""
        settings = dict(content["settings"])
        for key in ("over", "candidates", "students"):
            if settings.get(key) is not None:
                settings[key] = tuple(settings[key])
        if settings.get("prior", "auto") not in PRIORS:
            # The arms are in the order of its file, which need not exist any more.
            settings["prior"] = "model"
        return cls(
            Settings(**settings),
            tuple(Arm.from_json(arm) for arm in content["arms"]),
            content["refused"],
            Schedule.from_json(content["schedule"]),
            content["num_threads"],
            content["data_hash"],
            content.get("signals", {}),
            content.get("teacher_costs", {}),
            content.get("num_jobs", 1),
            content.get("recipe_hash", ""),
            content.get("input_hashes", content.get("code_hashes", {})),
            content.get("test_hash", ""),
        )


def read_state(folder: Path) -> dict[str, Any]:
    """Read the state of a search as plain data.

    Raises:
        FileNotFoundError: if the folder has none.
        ValueError: if the file is damaged.
    """
    path = folder / STATE
    if not path.exists():
        raise FileNotFoundError(
            f"--resume: {folder} is not the folder of a search. Expected a folder with {STATE}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"--resume: {path} is damaged ({error}). Expected the state of a search. Restore it "
            "from a copy, or start a new search"
        ) from error
    if not isinstance(content, dict) or "schedule" not in content:
        raise ValueError(
            f"--resume: {path} has no schedule. Expected the state of a search. Restore it from a "
            "copy, or start a new search"
        )
    return content
