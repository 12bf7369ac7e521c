"""Sections of a recipe that describe data."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import model_validator

from instil.cards import NonNegativeInt, PositiveInt
from instil.recipe.base_sections import OpenSection, Section


class AugmentConfig(OpenSection):
    """Augmentation of training samples, the same for teacher and student.

    ``crop``, ``flip``, ``mixup`` and ``partner`` are for images. Images with boxes have ``flip``
    only. Other samples have the options of
    the augmentation that their source or task defines, as further keys of this section.

    A mixture of two images has no label. Losses that read labels refuse mixtures, and trainings by
    labels alone (of a teacher or a baseline) see no mixtures.
    """

    crop: NonNegativeInt = 0
    """Largest random shift, in pixels."""

    flip: bool = False
    """Whether images are mirrored left to right at random, with their boxes."""

    mixup: bool = False
    """Whether each image is mixed with another one."""

    partner: bool = False
    """Whether another image and its label are added to each image of the distilled student, for
    schemes that mix them (``mixskd``)."""

    views: PositiveInt | None = None
    """Number of augmented versions of an image, which are used in turn and are the same for every
    seed. Null: a new version in every epoch."""

    @model_validator(mode="after")
    def _check_mixtures(self) -> AugmentConfig:
        if self.mixup and self.partner:
            raise ValueError(
                "partner: mixtures of mixtures are not supported. Expected mixup or partner, "
                "got both. Remove mixup"
            )
        return self


class SurrogateConfig(OpenSection):
    """Unlabelled images that replace the training data of the student.

    Further keys are options of these images.
    """

    name: str
    """``noise``, ``blobs``, ``scheme`` (the scheme makes its own images), or a data source."""


class ExemplarConfig(Section):
    """Training samples of earlier stages that a stage learns from again."""

    size: PositiveInt
    """Number of samples of all earlier stages together. Each class has the same number of them,
    divided among the stages that learn it."""

    selection: Literal["herding", "random"] = "herding"
    """Choice of the samples of a class. herding: their mean feature approximates that of the class;
    random: drawn by the seed."""

    classifier: Literal["head", "nearest_mean"] = "head"
    """Classifier of the evaluated and exported student. head: the trained one; nearest_mean: the
    class whose exemplars have the nearest mean feature."""


class DataConfig(OpenSection):
    """Data of the recipe. Further keys are options of the source."""

    name: str
    """Name of a data source."""

    class_subset: list[int | str] | None = None
    """Classes of the training samples, by name or by index from 0, in the order of the labels.
    Other samples are left out. Null: all classes."""

    test_classes: Literal["seen"] | list[int | str] | None = None
    """Classes of the validation and test samples: a list, or ``seen`` for all classes that the
    student has learned in this and earlier stages. Null: those of ``class_subset``."""

    test_stages: Literal["own", "seen"] = "own"
    """Validation and test samples of a stage: its own, or ``seen`` for those of earlier stages
    too, as for students that learn one domain after another."""

    exemplars: ExemplarConfig | None = None
    """Samples of earlier stages that every stage keeps for its training, also that of a baseline.
    Null: none."""

    surrogate: SurrogateConfig | None = None
    """Images that replace the training data of the student, which are then not opened for it.
    Null: the student learns from the training data."""

    num_labeled: NonNegativeInt | None = None
    """Number of training samples whose label the student sees. Null: all."""

    batch_size: PositiveInt = 64
    """Samples per optimizer step."""

    sampler: str = "shuffled"
    """Composition of the batches of the distilled student. Teacher and baselines have shuffled
    batches and the same number of steps."""

    workers: NonNegativeInt = 0
    """Number of processes that load and decode samples."""

    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training samples."""


class TeacherDataConfig(OpenSection):
    """Data that a teacher is trained on. Further keys are options of the source."""

    name: str | None = None
    """Name of a data source other than the recipe's. Null: the recipe's data."""

    num_labeled: Annotated[int, Ge(1)] | None = None
    """Number of training samples whose label the teacher sees. Null: all. With the recipe's data
    and the student's ``num_labeled``, both see the labels of the same samples."""

    @model_validator(mode="after")
    def _check_source(self) -> TeacherDataConfig:
        if self.name is None and self.options:
            option = next(iter(self.options))
            raise ValueError(
                f"{option} is an option of a source. Expected name in the same section, got none; "
                "the recipe's data has only num_labeled here"
            )
        return self
