"""The sections of a recipe: their keys, types and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from instil.core import Positive, Schedule
from instil.recipe.options import SCHEDULED
from instil.recipe.overrides import merge

Name = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
Whole = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Lt(1)]


class Section(BaseModel):
    """A part of the recipe; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Open(Section):
    """A part whose further keys are options of the method or source that it names."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The further keys, as plain data."""
        return dict(self.model_extra or {})


class Task(Open):
    """What is learned; further keys are the task's own options."""

    name: str = "classification"


class Augment(Section):
    """Random shifts by up to ``crop`` pixels and mirror images, the same for teacher and student."""

    crop: Annotated[int, Ge(0)] = 0
    flip: bool = False


class Data(Open):
    """Where samples come from; ``labels`` is of how many the student sees the label (null: all), ``workers`` how many processes decode images.

    Further keys are the source's own options.
    """

    name: str
    labels: Whole | None = None
    batch_size: Whole = 64
    workers: Annotated[int, Ge(0)] = 0
    augment: Augment = Augment()


class Input(Section):
    """What a model expects of its images; null: as the data are."""

    size: Whole | list[Whole] | None = None
    mean: list[float] | None = None
    std: list[Annotated[float, Gt(0)]] | None = None


class Model(Section):
    """A network: ``networks:cnn``, ``timm:resnet18``, ``torchvision:resnet18``, ``my_module:build``, or in a stage ``previous``.

    A teacher without ``weights`` is trained first, unless it is ``trained`` as it is built.
    """

    model: str
    options: dict[str, Any] = {}
    weights: str | None = None
    trained: bool = False
    pretrained: bool = False
    taps: dict[str, str | int | list[str | int]] = {}
    input: Input = Input()
    classes: list[str] | None = None


class Method(Open):
    """A scheme: its name and its options."""

    type: str = "offline"


class Factor(Open):
    """What weighs samples, or balances losses: its catalogue name and its options."""

    type: str


class Goal(Open):
    """An objective: its catalogue name (by default the key), its weight, the weights of its samples, and its options."""

    type: str
    weight: Annotated[float | Schedule, SCHEDULED] = 1.0
    sample_weight: Factor | None = None


def _matching(group: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(group.get("match"), str):
        raise ValueError("match is missing: which parameters, by their name in the model, such as head.*")
    return group


class Optimizer(Open):
    """An optimizer of torch by its name in any case, and its options; ``groups`` have options of their own."""

    type: str = "adamw"
    lr: Positive = 1e-3
    groups: list[Annotated[dict[str, Any], AfterValidator(_matching)]] = []


class Train(Section):
    """How long and how: a length in epochs or steps, warm-up as a share of it, checkpoints and evaluation every so many epochs."""

    epochs: Whole | None = None
    steps: Whole | None = None
    accumulate: Whole = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    clip: Positive | None = None
    warmup: Share = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    optimizer: Optimizer = Optimizer()
    optimizers: dict[str, dict[str, Any]] = {}
    checkpoint_every: Whole | None = 5
    evaluate_every: Whole = 1
    evaluate_steps: Whole | None = None
    allow_coupled_cut: bool = False
    compile: bool = False
    shard: bool = False

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are both given; leave one out")
        if self.epochs is None and self.steps is None:
            self.epochs = 20
        return self

    def optimizer_of(self, learner: str) -> Optimizer:
        """The optimizer of one learner: ``optimizer``, changed by ``optimizers.<learner>``."""
        return Optimizer(**merge(self.optimizer.model_dump(), self.optimizers.get(learner, {})))


def _different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"the seed {next(s for s in seeds if seeds.count(s) > 1)} is given twice: it would be the same run, counted as another")
    return seeds


class Recipe(Section):
    """A whole experiment. ``folder`` is where relative paths and the user's own modules are looked for."""

    name: str = "recipe"
    folder: str = "."
    imports: list[str] = []
    task: Task = Task()
    data: Data
    teacher: Model | list[Model] | None = None
    student: Model
    scheme: Method = Method()
    objectives: dict[Name, Goal]
    balance: Factor | None = None
    train: Train = Train()
    teacher_train: Train | None = None
    stages: list[dict[str, Any]] = []
    seeds: Annotated[list[Annotated[int, Ge(0)]], Field(min_length=1), AfterValidator(_different)] = [0, 1, 2]
    baselines: list[Literal["alone", "label_smoothing", "pseudo_labels"]] = []
    export: bool = True

    @property
    def teachers(self) -> list[Model]:
        """The teachers, none, one or several."""
        return self.teacher if isinstance(self.teacher, list) else [self.teacher] if self.teacher else []

    def locate(self, path: str) -> Path:
        """A file or folder that the recipe names, looked for in its folder and then where the command runs."""
        places = [Path(path)] if Path(path).is_absolute() else [Path(self.folder) / path, Path(path)]
        for place in places:
            if place.expanduser().exists():
                return place.expanduser()
        raise FileNotFoundError(f"there is no file or folder '{path}' in {Path(self.folder).resolve()} or {Path.cwd()}")
