"""The sections of a recipe: their keys, types and defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from instil.core import Positive, Schedule
from instil.recipe.overrides import merge
from instil.recipe.schedules import SCHEDULED

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
    """Random shifts by up to ``crop`` pixels, mirror images, and ``mixup`` with another image, the same for teacher and student.

    ``views``: how many versions there are of an image, the same for every seed; they come round again (null: a new one in every epoch).
    A mixture has no label: losses of labels refuse it, and what is trained by labels alone (a teacher first, a baseline) sees no mixtures.
    ``partner`` adds another training image and its label to each image of the distilled student, for schemes that mix them (``mixskd``).
    """

    crop: Annotated[int, Ge(0)] = 0
    flip: bool = False
    mixup: bool = False
    partner: bool = False
    views: Whole | None = None

    @model_validator(mode="after")
    def _mixed_once(self) -> Augment:
        if self.mixup and self.partner:
            raise ValueError(
                "partner: mixtures of mixtures are not supported. Expected mixup or partner, got both. "
                "Remove mixup"
            )
        return self


class Images(Open):
    """Images without a label, in the place of the training samples: ``noise``, ``blobs``, ``blank`` (the scheme makes its own), or another source.

    Further keys are its own options.
    """

    name: str


class Data(Open):
    """Source of the samples, and how the student reads them; further keys are options of the source.

    ``images`` replaces the training samples of the student, which are then not opened for it (null: no replacement).
    ``num_labeled`` is the number of training samples whose label the student sees (null: all).
    ``workers`` is the number of processes that decode images.
    ``sampler`` composes the batches of the distilled student; teacher and baselines have shuffled batches and the same
    number of steps.
    """

    name: str
    images: Images | None = None
    num_labeled: Annotated[int, Ge(0)] | None = None
    batch_size: Whole = 64
    sampler: str = "shuffled"
    workers: Annotated[int, Ge(0)] = 0
    augment: Augment = Augment()


class Input(Section):
    """What a model expects of its images; null: as the data are."""

    size: Whole | list[Whole] | None = None
    mean: list[float] | None = None
    std: list[Annotated[float, Gt(0)]] | None = None


class Model(Section):
    """A network: ``networks:cnn``, ``timm:resnet18``, ``torchvision:resnet18``, ``my_module:build``, or in a stage ``previous`` or ``stage:NAME``.
    A student may begin as ``teacher``, its own.

    ``changes`` make a smaller net of it, one after another: ``depth``, ``width``, ``low_rank``, ``lora``, ``quantized``, each with its options.

    A teacher without ``weights`` is trained first, unless it is ``trained`` as it is built. ``freeze`` names modules or parameters, or patterns such
    as ``layer*``, that stay as they are while this net is trained; a teacher with ``weights`` and ``freeze`` is trained first, but for these.
    """

    model: str
    options: dict[str, Any] = {}
    changes: dict[str, dict[str, Any]] = {}
    weights: str | None = None
    trained: bool = False
    pretrained: bool = False
    taps: dict[str, str | int | list[str | int]] = {}
    input: Input = Input()
    classes: list[str] | None = None
    freeze: list[str] = []

    @property
    def remote(self) -> bool:
        """Whether it lives behind a server."""
        return self.model in ("remote", "networks:remote")

    @property
    def earlier(self) -> bool:
        """Whether it is the net of an earlier stage."""
        return self.model == "previous" or self.model.startswith("stage:")

    @model_validator(mode="after")
    def _earlier_ones_are_made(self) -> Model:
        made = ("options", "changes", "weights", "trained", "pretrained", "taps", "input")
        fixed = [name for name in made if getattr(self, name) != _default(self, name)]
        if self.earlier and fixed:
            raise ValueError(
                f"the net of an earlier stage has its {fixed[0]} already; leave {fixed[0]} out"
            )
        return self


def _default(section: Section, name: str) -> Any:
    return type(section).model_fields[name].default


class Store(Section):
    """The teacher's answers on disk, at a path or URL: ``instil record`` writes them, a run reads them and needs no teacher.

    ``codec``: exact, float16, or of the logits the ``size`` largest with what the others hold (top), or so many drawn ones (sampled).
    """

    path: str
    codec: Literal["exact", "float16", "top", "sampled"] = "exact"
    size: Whole = 64


class Method(Open):
    """A scheme: its name and its options."""

    type: str = "offline"


class TeacherData(Open):
    """Data that a teacher is trained on; further keys are options of the source.

    ``name`` is a source other than the recipe's (null: the recipe's data).
    ``num_labeled`` is the number of training samples whose label the teacher sees (null: all). With the recipe's data
    and the student's ``num_labeled``, teacher and student know the labels of the same samples.
    """

    name: str | None = None
    num_labeled: Annotated[int, Ge(1)] | None = None

    @model_validator(mode="after")
    def _options_need_a_source(self) -> TeacherData:
        if self.name is None and self.options:
            option = next(iter(self.options))
            raise ValueError(
                f"{option} is an option of a source. Expected name beside it, got none; "
                "the recipe's data has only num_labeled here"
            )
        return self


class Together(Open):
    """How several teachers answer as one: ``ensemble``, ``routed``, ``amalgamated`` or ``private_votes``; further keys are its options."""

    type: str = "ensemble"


class TeacherModel(Model):
    """A teacher, with the ``scheme`` by which it is trained first: one that needs no teacher itself, such as adversarial_training.

    ``data``: what it is trained on (null: the recipe's data with all labels); ``copies``: so many of it, each from initial weights of its own.

    ``progress`` is the part of its training after which it teaches, at the end of an epoch. A ``plain`` teacher is asked once about each training
    image as it is, before the stage begins, so that the student alone sees shifted and mirrored ones. A teacher of texts may have a ``tokenizer``
    other than that of the data: it reads the same texts in its own tokens, and is trained on them.
    """

    scheme: Method = Method()
    data: TeacherData | None = None
    copies: Whole = 1
    tokenizer: str | None = None
    progress: Annotated[float, Gt(0), Le(1)] = 1.0
    plain: bool = False

    @property
    def ready(self) -> bool:
        """Whether it needs no training: it has weights, and no part to be trained, is trained as it is built, or lives behind a server."""
        return self.trained or self.remote or (self.weights is not None and not self.freeze)

    @model_validator(mode="after")
    def _trained_here(self) -> TeacherModel:
        if self.earlier and (self.data is not None or self.copies > 1):
            raise ValueError(
                "the net of an earlier stage is one and has been trained; leave data and copies out"
            )
        if self.ready and self.data is not None and self.data.num_labeled is not None:
            raise ValueError(
                "data.num_labeled hides labels from a training, and this teacher is not trained "
                "here; leave it out"
            )
        if self.copies > 1 and self.ready:
            raise ValueError(
                "copies are trained from other initial weights each, and this teacher is not trained here; leave copies out"
            )
        if self.progress < 1 and (self.ready or self.earlier):
            raise ValueError(
                "progress is that of a training before this one, and this teacher is not trained here; leave it out"
            )
        return self


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
        raise ValueError(
            "match is missing: which parameters, by their name in the model, such as head.*"
        )
    return group


class Optimizer(Open):
    """An optimizer of torch by its name in any case, and its options; ``groups`` have options of their own."""

    type: str = "adamw"
    lr: Positive = 1e-3
    groups: list[Annotated[dict[str, Any], AfterValidator(_matching)]] = []


class Train(Section):
    """How long and how: a length in epochs or steps, warm-up as a share of it, checkpoints and evaluation every so many epochs.

    ``checkpoint_steps`` writes checkpoints within epochs too, every so many steps; a stopped run goes on from the last one.
    ``checkpoint_minutes`` writes one whenever the last is older, so that a stopped run loses at most this time and one step.
    ``sync_batch_norm`` gives BatchNorm layers the statistics of the whole batch if several processes train.
    ``shard`` spreads weights, gradients and optimizer states over processes.
    """

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
    checkpoint_steps: Whole | None = None
    checkpoint_minutes: Positive | None = 10
    evaluate_every: Whole = 1
    evaluate_steps: Whole | None = None
    allow_coupled_cut: bool = False
    compile: bool = False
    shard: bool = False
    sync_batch_norm: bool = True

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
        raise ValueError(
            f"the seed {next(s for s in seeds if seeds.count(s) > 1)} is given twice: it would be the same run, counted as another"
        )
    return seeds


def _at_least_one(objectives: dict[str, Goal]) -> dict[str, Goal]:
    if not objectives:
        raise ValueError(
            "there is no loss to learn from. Expected at least one, such as {kd: {}};"
            " `instil methods` lists them"
        )
    return objectives


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError(
            f"auto, cpu, cuda, cuda:1 (the second GPU) or mps was expected, not '{name}'"
        )
    return name


class Recipe(Section):
    """A whole experiment. ``folder`` is where relative paths and the user's own modules are looked for."""

    name: str = "recipe"
    folder: str = "."
    imports: list[str] = []
    task: Task = Task()
    data: Data
    teacher: TeacherModel | list[TeacherModel] | None = None
    together: Together | None = None
    store: Store | None = None
    student: Model
    scheme: Method = Method()
    objectives: Annotated[dict[Name, Goal], AfterValidator(_at_least_one)]
    balance: Factor | None = None
    train: Train = Train()
    teacher_train: Train | None = None
    stages: list[dict[str, Any]] = []
    device: Annotated[str, AfterValidator(_device)] = "auto"
    seeds: Annotated[
        list[Annotated[int, Ge(0)]], Field(min_length=1), AfterValidator(_different)
    ] = [0, 1, 2]
    baselines: list[Literal["alone", "label_smoothing", "pseudo_labels", "noise", "blobs"]] = []
    export: bool = True

    @property
    def teachers(self) -> list[TeacherModel]:
        """The teachers, none, one or several, each of the copies by itself."""
        given = (
            self.teacher
            if isinstance(self.teacher, list)
            else [self.teacher]
            if self.teacher
            else []
        )
        return [spec for spec in given for _ in range(spec.copies)]

    def locate(self, path: str) -> Path:
        """A file or folder that the recipe names, looked for in its folder and then where the command runs."""
        places = (
            [Path(path)] if Path(path).is_absolute() else [Path(self.folder) / path, Path(path)]
        )
        for place in places:
            if place.expanduser().exists():
                return place.expanduser()
        raise FileNotFoundError(
            f"there is no file or folder '{path}' in {Path(self.folder).resolve()} or {Path.cwd()}"
        )
