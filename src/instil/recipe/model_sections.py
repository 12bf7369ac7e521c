"""Sections of a recipe that describe networks and teachers."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Gt, Le
from pydantic import model_validator

from instil.cards import PositiveInt
from instil.networks.source_registry import find_source
from instil.recipe.base_sections import Section, default_of
from instil.recipe.data_sections import TeacherDataConfig
from instil.recipe.input_section import InputConfig
from instil.recipe.scheme_sections import SchemeConfig

FIXED_AFTER_A_STAGE = (
    "options",
    "weights",
    "is_trained",
    "pretrained",
    "taps",
    "input",
    "reads",
)
"""Keys that a network of an earlier stage already has."""

FIXED_WITHOUT_GRADIENTS = ("changes", "weights", "pretrained", "freeze", "taps")
"""Keys that a model without trainable parameters cannot have."""


class ModelConfig(Section):
    """A network."""

    model: str
    """``networks:cnn``, a model source such as ``timm:resnet18``, ``my_module:build``; in a stage
    also ``previous`` or ``stage:NAME``; for a student also ``teacher``, which starts from the
    teacher's weights. Teachers may also be ``sklearn:CLASS``, ``onnx:FILE`` or
    ``predictions:FILE``; students of table rows also ``sklearn:CLASS``."""

    options: dict[str, Any] = {}
    """Arguments of the function that builds the network."""

    changes: dict[str, dict[str, Any]] = {}
    """Compressions, applied in order: ``depth``, ``width``, ``low_rank``, ``prune``,
    ``sparse``, ``lora``, ``quantized``, ``lsq``, each with its options. A student of an earlier
    stage is compressed further."""

    rounds: PositiveInt = 1
    """Number of rounds in which ``changes.prune`` removes its share; a training follows each. The
    rounds share ``train`` equally. Only for a student, in a recipe without ``stages``."""

    weights: str | None = None
    """File of weights: ``.safetensors``, or ``.pt`` or ``.pth`` with plain tensors."""

    is_trained: bool = False
    """Whether the network is trained as it is built, so that a teacher is not trained first."""

    pretrained: bool = False
    """Whether the library that builds the network loads its pretrained weights."""

    taps: dict[str, str | int | list[str | int]] = {}
    """Roles, and the modules whose outputs they are."""

    input: InputConfig = InputConfig()
    """Inputs that the network expects."""

    reads: dict[str, str] = {}
    """Keys that the task reads, and the keys of the batch in their place, such as ``{image:
    depth}``. Empty: the keys of the task."""

    classes: list[str] | None = None
    """Names of the classes, if they are not those of the data."""

    grow_head: bool = False
    """Whether the head of a student of an earlier stage gets an output for each new class of the
    data. Old outputs keep their weights."""

    reset: list[str] = []
    """Names or patterns of modules that start from new weights in a student of an earlier stage."""

    freeze: list[str] = []
    """Names of modules or parameters, or patterns such as ``layer*``, that are not trained. A
    teacher with ``weights`` and ``freeze`` is trained first, except for these."""

    @property
    def remote(self) -> bool:
        """Whether the network runs on a server."""
        return self.model in ("remote", "networks:remote")

    @property
    def learns_by(self) -> str:
        """Training of the network: ``gradients``, ``fit`` or ``nothing``."""
        source = find_source(self.model)
        return "gradients" if source is None else source.learns_by

    @property
    def is_fitted(self) -> bool:
        """Whether the network is trained by its own ``fit``."""
        return self.learns_by == "fit"

    @property
    def is_differentiable(self) -> bool:
        """Whether outputs have gradients with respect to the input, and modules are accessible."""
        return self.learns_by == "gradients" and not self.remote

    @property
    def by_index(self) -> bool:
        """Whether the network has outputs for the samples of the recipe only."""
        source = find_source(self.model)
        return source is not None and source.by_index

    @property
    def earlier(self) -> bool:
        """Whether the network comes from an earlier stage."""
        return self.model == "previous" or self.model.startswith("stage:")

    @model_validator(mode="after")
    def _check_rounds(self) -> ModelConfig:
        if self.rounds == 1:
            return self
        if isinstance(self, TeacherConfig):
            raise ValueError("rounds: a teacher is not pruned in rounds. Leave rounds out")
        if self.earlier:
            raise ValueError("rounds: a stage prunes its student once. Leave rounds out")
        if "prune" not in self.changes:
            raise ValueError(
                "rounds: nothing is pruned. Expected changes.prune, such as {prune: {share: 0.5}}"
            )
        return self

    @model_validator(mode="after")
    def _check_earlier(self) -> ModelConfig:
        fixed = [key for key in FIXED_AFTER_A_STAGE if getattr(self, key) != default_of(self, key)]
        if self.earlier and fixed:
            raise ValueError(
                f"the net of an earlier stage has its {fixed[0]} already; leave {fixed[0]} out"
            )
        is_earlier_student = self.earlier and not isinstance(self, TeacherConfig)
        if self.reset and not is_earlier_student:
            raise ValueError(
                "reset: only a student of an earlier stage has weights to replace. Expected model: "
                "previous or stage:NAME in a student. Leave reset out"
            )
        if self.grow_head and not is_earlier_student:
            raise ValueError(
                "grow_head: only a student of an earlier stage gets outputs for new classes. "
                "Expected model: previous or stage:NAME in a student. Leave grow_head out"
            )
        return self

    @model_validator(mode="after")
    def _check_trainable(self) -> ModelConfig:
        if self.learns_by == "gradients":
            return self
        fixed = [key for key in FIXED_WITHOUT_GRADIENTS if getattr(self, key)]
        if fixed:
            raise ValueError(f"{fixed[0]}: {self.model} has no weights; leave {fixed[0]} out")
        if not isinstance(self, TeacherConfig) and not self.is_fitted:
            raise ValueError(
                f"model: {self.model} cannot be trained. Expected a network or an estimator, such "
                f"as sklearn:RandomForestClassifier, for a student; {self.model} can be its teacher"
            )
        return self


class TeacherConfig(ModelConfig):
    """A teacher. Without trained weights it is trained before the student."""

    scheme: SchemeConfig = SchemeConfig()
    """Scheme of the teacher's training, one without a teacher, such as ``adversarial_training``."""

    data: TeacherDataConfig | None = None
    """Data that the teacher is trained on. Null: the recipe's data with all labels."""

    num_replicas: PositiveInt = 1
    """Number of teachers of this kind, each trained from other initial weights."""

    shared_classes: bool = False
    """Whether losses compare only the classes that teacher and student share, by name."""

    tokenizer: str | None = None
    """Tokenizer of the teacher, if it is not that of the data. The teacher reads the same texts in
    its own tokens and is trained on them."""

    checkpoint_at: Annotated[float, Gt(0), Le(1)] = 1.0
    """Part of the teacher's training after which its weights are used, at the end of an epoch."""

    precompute: bool = False
    """Whether the teacher's outputs are computed once, for the training images without
    augmentation, before the stage begins."""

    cpu_offload: bool = False
    """Whether the weights of the teacher's repeated blocks stay in the memory of the machine. Each
    block is copied to the device for its own forward pass: the same outputs for less memory of the
    device and more time. Only for a teacher that is not trained here."""

    @property
    def ready(self) -> bool:
        """Whether the teacher needs no training."""
        has_all_weights = self.weights is not None and not self.freeze
        learns_nothing = self.learns_by == "nothing"
        return self.is_trained or self.remote or has_all_weights or learns_nothing

    @model_validator(mode="after")
    def _check_earlier_teacher(self) -> TeacherConfig:
        if self.earlier and (self.data is not None or self.num_replicas > 1):
            raise ValueError(
                "a teacher from an earlier stage is trained. Leave data and num_replicas out"
            )
        if self.earlier and self.changes:
            raise ValueError(
                "changes: a teacher from an earlier stage is used as it is. Leave changes out, or "
                "compress the student"
            )
        return self

    @model_validator(mode="after")
    def _check_training(self) -> TeacherConfig:
        if self.ready and self.data is not None and self.data.num_labeled is not None:
            raise ValueError(
                "data.num_labeled hides labels from a training, and this teacher is not trained "
                "here; leave it out"
            )
        if self.num_replicas > 1 and self.ready:
            raise ValueError("num_replicas: this teacher is not trained here; leave it out")
        if self.is_fitted and (self.scheme != SchemeConfig() or self.is_trained):
            key = "is_trained" if self.is_trained else "scheme"
            raise ValueError(f"{key}: {self.model} is trained by its own fit; leave {key} out")
        if self.checkpoint_at < 1 and (self.ready or self.is_fitted or self.earlier):
            raise ValueError(
                "checkpoint_at is a part of a training before this one, and this teacher is not "
                "trained here; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _check_cpu_offload(self) -> TeacherConfig:
        if not self.cpu_offload:
            return self
        if not self.is_differentiable:
            raise ValueError(
                f"cpu_offload: {self.model} has no weights on the device; leave cpu_offload out"
            )
        if self.earlier or not self.ready:
            raise ValueError(
                "cpu_offload: this teacher is trained here, with all weights on the device. "
                "Expected a teacher with weights, or is_trained: true. Leave cpu_offload out"
            )
        return self
