"""Optional capabilities of schemes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from instil.core import Batch, Net

Perturbation = Callable[[nn.Module, Batch], Batch]
"""``(net, batch) -> batch``: a harder version of a test batch for this net, such as an attack."""


@runtime_checkable
class SynthesizesImages(Protocol):
    """Scheme that creates its images itself, in the shape of the batch's.

    If the images have a class, its card has the tag ``synthetic_labels``.
    """

    def synthetic_images(self, batch: Batch) -> Tensor:
        """Images (N, C, H, W) in [0, 1] that the student learns from, for the report."""


@runtime_checkable
class GeneratesText(Protocol):
    """Scheme that learns from text generated during training.

    No teacher outputs can be recorded for it before.
    """

    def student_text(self, batch: Batch) -> Batch:
        """Replace the text after each prompt by text that the student samples."""


@runtime_checkable
class RetokenizesTexts(Protocol):
    """Scheme whose generated texts a teacher with another tokenizer can read."""

    def set_retokenizer(self, retokenize: Callable[[Batch, Batch], Batch]) -> None:
        """Set the function that adds the teacher's tokens of generated rows to a batch."""


class Preparation(Protocol):
    """Preparation of later steps, such as of their texts, while the current step trains."""

    @property
    def num_later_steps(self) -> int:
        """Number of later steps whose batches ``begin`` needs."""

    def check_processes(self, num_processes: int) -> None:
        """Raise ValueError if the preparation does not support this number of processes."""

    def begin(self, epoch_step: int, steps: Sequence[Sequence[Batch]]) -> None:
        """Start to prepare; called before each step of an epoch.

        Args:
            epoch_step: index of the current step in its epoch.
            steps: micro-batches of the current step and of later steps of the epoch.
        """

    def end(self) -> None:
        """Forget the prepared steps at the end of the training."""

    def metrics(self) -> dict[str, float]:
        """Values for the record of a training, since the last call."""

    def state(self) -> dict[str, Any]:
        """Prepared steps, for a checkpoint of this process."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the prepared steps to those of ``state``."""


@runtime_checkable
class PreparesSteps(Protocol):
    """Scheme that may prepare later steps while the current one trains."""

    def preparation(self) -> Preparation | None:
        """Preparation of later steps; None: the scheme prepares nothing."""


@runtime_checkable
class ServesStudent(Protocol):
    """Scheme whose texts a server with the student's weights may generate."""

    def needs_student_writer(self) -> bool:
        """Whether its options name a server."""

    def set_student_writer(self, write: Callable[[Net, Path], None]) -> None:
        """Set the function that writes the student to the path that the server reads."""


@runtime_checkable
class VerifiesTexts(Protocol):
    """Scheme that may check generated texts."""

    def needs_verifier(self) -> bool:
        """Whether its options need a verifier."""

    def set_verifier(self, verify: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Set the check of generated tokens against those of the data's answers."""


@runtime_checkable
class FiltersTeacherSequences(Protocol):
    """Scheme that may leave out sequences of the teacher with errors.

    Of a teacher that is not trained yet it may leave out all.
    """

    def remove_filter(self) -> bool:
        """Use every sequence of the teacher from now on.

        Returns:
            Whether the scheme left out sequences before.
        """


@runtime_checkable
class TrainsOtherStudents(Protocol):
    """Scheme that trains further students, which are evaluated and stored like the exported one."""

    def other_students(self) -> dict[str, Net]:
        """Further trained students by name."""


@runtime_checkable
class CarriesMemory(Protocol):
    """Scheme whose memory goes from a stage of a student to the next one."""

    def memory(self) -> dict[str, Tensor]:
        """Content of the memory after a stage, on the CPU."""

    def set_memory(self, memory: Mapping[str, Tensor]) -> None:
        """Begin with the memory of an earlier stage; called before ``prepare``.

        Args:
            memory: result of ``memory``.
        """


@runtime_checkable
class EvaluatesRobustness(Protocol):
    """Scheme with extra test conditions, each reported like the main metric."""

    @classmethod
    def robustness_evaluations(cls, options: Mapping[str, Any]) -> dict[str, Perturbation]:
        """Extra test conditions by name.

        Args:
            options: options of the scheme in the recipe.
        """
