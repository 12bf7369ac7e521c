"""Sample outputs of student and teacher for each task."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import instil.testing.sample_batches as sample_batches
import instil.testing.sample_images as sample_images
import instil.testing.sample_pairs as sample_pairs
import instil.testing.sample_sides as sample_sides
from instil.cards import suggestion
from instil.core import UNLABELLED, Batch, Outputs
from instil.testing.sample_sides import NUM_CLASSES, MakeOutputs

NUM_MEMBERS = 3
"""Number of members of a teacher ensemble."""

TASKS: dict[str, tuple[MakeOutputs, Callable[[int], Batch]]] = {
    "classification": (sample_sides.classification, sample_batches.no_entries),
    "view_classification": (sample_sides.view_classification, sample_batches.no_entries),
    "point_classification": (sample_sides.point_classification, sample_batches.no_entries),
    "image_to_points": (sample_sides.image_to_points, sample_batches.pixels_of_points),
    "video_classification": (sample_sides.video_classification, sample_batches.no_entries),
    "text_classification": (sample_sides.text_classification, sample_batches.padding),
    "segmentation": (sample_sides.segmentation, sample_batches.segmentation_labels),
    "depth": (sample_images.depth, sample_batches.depths),
    "pose": (sample_images.pose, sample_batches.keypoints),
    "node_classification": (sample_sides.node_classification, sample_batches.graph),
    "link_prediction": (sample_sides.link_prediction, sample_batches.links),
    "image_text": (sample_pairs.image_text, sample_batches.no_entries),
    "detection": (sample_sides.detection, sample_batches.boxes),
    "regression": (sample_sides.regression, sample_batches.real_labels),
    "seq2seq": (sample_sides.seq2seq, sample_batches.pairs),
    "language": (sample_sides.language, sample_batches.tokens),
    "sentence_embedding": (sample_pairs.sentence_embedding, sample_batches.no_entries),
    "speech_recognition": (sample_sides.speech_recognition, sample_batches.transcripts),
    "ranking": (sample_sides.ranking, sample_batches.grades),
    "diffusion": (sample_sides.diffusion, sample_batches.no_entries),
    "recommendation": (sample_sides.ranking, sample_batches.grades),
    "representation": (sample_sides.classification, sample_batches.no_entries),
    "promptable_segmentation": (
        sample_sides.promptable_segmentation,
        sample_batches.object_labels,
    ),
}
"""Task -> outputs of a side, and further entries of the batch."""


def sample_outputs(
    num_samples: int = 8,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    task: str = "classification",
) -> tuple[Outputs, Outputs, Batch]:
    """Return random outputs with all standard roles of a task.

    Args:
        num_samples: number N of samples.
        seed: random seed.
        dtype: type of the outputs.
        task: name of the task.

    Returns:
        Student outputs, teacher outputs and a batch, in which every third sample has no label.

    Raises:
        ValueError: for a task without sample outputs.
    """
    if task not in TASKS:
        raise ValueError(f"task '{task}' has no sample outputs.{suggestion(task, TASKS)}")
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(num_samples, *shape, generator=generator).to(dtype)

    make_outputs, make_entries = TASKS[task]
    # The order of the draws decides the values: student, teacher, labels, members.
    student = make_outputs(draw, "student")
    teacher = make_outputs(draw, "teacher")
    label = torch.randint(0, NUM_CLASSES, (num_samples,), generator=generator)
    label[::3] = UNLABELLED
    if task == "classification":
        teacher["members"] = tuple(make_outputs(draw, "teacher") for _ in range(NUM_MEMBERS))
    batch = {"label": label, "index": torch.arange(num_samples), **make_entries(num_samples)}
    clock = {"step": torch.tensor(3), "progress": torch.tensor(0.5), "seed": torch.tensor(0)}
    return student, teacher, batch | clock
