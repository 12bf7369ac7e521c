"""Prompts in the loop: further points where the masks of student and teacher disagree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Teacher,
    Update,
)
from instil.functional.choices import require_choice
from instil.functional.keyed_random import keyed_uniform
from instil.functional.masks import best_masks, resize_masks
from instil.functional.prompts import PADDING, sample_points
from instil.items import replace_invalid

STREAM = "scheme.prompt_loop.points"
"""Random stream of the points."""
MASK_ROLES = ("mask_logits", "iou_scores")
MaskSource = Literal["none", "student", "teacher"]


class PromptLoop(Scheme):
    """Masks for the prompts of the data, and for prompts with points in regions of disagreement.

    After each round, every prompt gets one more point, drawn where the masks of student and teacher
    differ: a point of the object if it is in the teacher's mask. Both sides then segment again,
    with the same image embeddings. ``mask_logits`` and ``iou_scores`` of both sides have the
    prompts of all rounds. Without a teacher, points are drawn where the student's mask is wrong.

    With ``mask``, prompts of later rounds also have the mask of the round before: the logits of the
    candidate with the best predicted overlap, without gradient, as in the training of SAM.

    Raises:
        ValueError: if the student has no ``mask_logits``, and for masks of a missing teacher.
    """

    card = Card(
        "EdgeSAM: Prompt-In-the-Loop Distillation for SAM",
        "https://arxiv.org/abs/2312.06660",
        "IJCV",
        2025,
        source="offline",
        tasks=("promptable_segmentation",),
        tags=("teacher_modules",),
        equation=r"q_{r+1} = q_r \cup \lbrace (x, [t(x; q_r) > 0]) \rbrace, \quad x \sim "
        r"\mathcal{U}\lbrace x : [s(x; q_r) > 0] \neq [t(x; q_r) > 0] \rbrace",
        use="For the objective edge_sam, after a stage with mobile_sam. Without a teacher, with "
        "segment_anything, it is the interactive training of SAM.",
        pitfalls="Each round runs both mask decoders once per prompt; the image encoders run once "
        "per step. The teacher decodes prompts of the student, so its masks cannot be recorded. "
        "With mask, the teacher must have learned from masks as prompts, as SAM has.",
        deviations="Every step has all prompts of the data; the code draws box or points for each "
        "batch. The masks of a round are those with the best overlap that the teacher predicts, as "
        "in the code. Prompts whose masks agree get no point.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        rounds: Annotated[int, Ge(0), Doc("number of rounds after the first")] = 1,
        mask: Annotated[
            MaskSource,
            Doc(
                "further prompt of later rounds: none; student or teacher: the mask of the round "
                "before of this side, for both sides"
            ),
        ] = "none",
    ):
        super().__init__(student, teacher, objectives)
        if teacher is not None and not hasattr(teacher, "net"):
            raise ValueError(
                f"scheme: {type(teacher).__name__} has no mask decoder. Expected one teacher that "
                "is a network. Use one teacher, without ensemble and store"
            )
        require_choice("mask", mask, get_args(MaskSource))
        if mask == "teacher" and teacher is None:
            raise ValueError("mask: there is no teacher. Expected none or student, got teacher")
        self.rounds = rounds
        self.mask = mask

    def teacher_roles(self) -> set[str]:
        # The rounds read masks and scores, whatever the objectives read.
        return super().teacher_roles() | set(MASK_ROLES)

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        teacher = self.teacher_outputs(batch, grad)
        student: Outputs = self.student(batch)
        if "mask_logits" not in student:
            raise ValueError(
                f"scheme: the student outputs {', '.join(student)}. Expected mask_logits. Use "
                "task: promptable_segmentation"
            )
        prompts = _prompts(batch)
        rounds = [(student, teacher)]
        for index in range(self.rounds):
            prompts = self._with_points(prompts, rounds[-1], batch, index)
            prompts = self._with_masks(prompts, rounds[-1], batch)
            rounds.append(self._decode(batch, prompts, student, teacher))
        students, teachers = zip(*rounds, strict=True)
        return _joined(students), _joined(teachers) if teacher else teacher

    def _with_points(
        self,
        prompts: tuple[Mapping[str, Tensor], ...],
        outputs: tuple[Outputs, Outputs],
        batch: Batch,
        index: int,
    ) -> tuple[Mapping[str, Tensor], ...]:
        """Prompts, each with one more point."""
        mask, reference, valid = _compared_masks(*outputs, batch)
        uniform = keyed_uniform(batch, len(prompts), f"{STREAM}.{index}")
        further = []
        for position, prompt in enumerate(prompts):
            differs = (mask[:, position] != reference[:, position]) & valid
            pixel, has_pixel = sample_points(differs, uniform[:, position])
            rows = torch.arange(len(pixel), device=pixel.device)
            is_object = reference[rows, position, pixel[:, 1], pixel[:, 0]].long()
            label = torch.where(has_pixel, is_object, PADDING)[:, None]
            point = _image_pixels(pixel, differs, batch["image"])[:, None]
            if "points" in prompt:
                point = torch.cat([prompt["points"].to(point), point], 1)
                label = torch.cat([prompt["point_labels"].to(label), label], 1)
            further.append({**prompt, "points": point, "point_labels": label})
        return tuple(further)

    def _with_masks(
        self,
        prompts: tuple[Mapping[str, Tensor], ...],
        outputs: tuple[Outputs, Outputs],
        batch: Batch,
    ) -> tuple[Mapping[str, Tensor], ...]:
        """Prompts, each with the mask of the round before."""
        if self.mask == "none":
            return prompts
        side = outputs[self.mask == "teacher"]
        masks = best_masks(side["mask_logits"].detach(), side["iou_scores"].detach())
        masks = replace_invalid(masks, batch)
        return tuple({**prompt, "mask": masks[:, i]} for i, prompt in enumerate(prompts))

    def _decode(
        self, batch: Batch, prompts: Any, student: Outputs, teacher: Outputs
    ) -> tuple[Outputs, Outputs]:
        """Masks of both sides for prompts, from the embeddings of the first round."""
        # A value that is not finite would reach the gradients of the second pass.
        embedding = replace_invalid(student["dense_embedding"], batch)
        student_batch = batch | {"prompts": prompts, "dense_embedding": embedding}
        # With a call of their own, taps of the image encoders need not fire.
        student_masks = self.student(student_batch, call=self.student.call)
        if self.teacher is None:
            return student_masks, {}
        net: Any = self.teacher.net
        teacher_batch = batch | {"prompts": prompts, "dense_embedding": teacher["dense_embedding"]}
        with torch.no_grad():
            return student_masks, net(teacher_batch, call=net.call)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)


def _prompts(batch: Batch) -> tuple[Mapping[str, Tensor], ...]:
    """Box and points of a batch as one prompt each, in this order."""
    groups = (("box",), ("points", "point_labels"))
    return tuple({key: batch[key] for key in keys} for keys in groups if keys[0] in batch)


def _compared_masks(
    student: Outputs, teacher: Outputs, batch: Batch
) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of the student and of its reference (N, P, h, w), and pixels that count (N, h, w)."""
    with torch.no_grad():
        logits = student["mask_logits"].detach()
        if not teacher:
            label = batch["label"]
            resized = resize_masks(logits, (label.shape[1], label.shape[2]))
            mask = best_masks(resized, student["iou_scores"]) > 0
            return mask, (label == 1)[:, None].expand_as(mask), label != UNLABELLED
        other = teacher["mask_logits"]
        resized = resize_masks(logits, (other.shape[3], other.shape[4]))
        mask = best_masks(resized, teacher["iou_scores"]) > 0
        reference = best_masks(other, teacher["iou_scores"]) > 0
        return mask, reference, torch.ones_like(mask[:, 0])


def _image_pixels(pixel: Tensor, mask: Tensor, image: Tensor) -> Tensor:
    """Positions (N, 2) in the image of pixels (N, 2) of masks (N, h, w)."""
    height, width = mask.shape[1:]
    scale = pixel.new_tensor([image.shape[3] / width, image.shape[2] / height], dtype=torch.float32)
    return (pixel.float() + 0.5) * scale - 0.5


def _joined(rounds: tuple[Outputs, ...]) -> Outputs:
    """Outputs of the first round, with the masks of all rounds."""
    masks = {role: torch.cat([outputs[role] for outputs in rounds], 1) for role in MASK_ROLES}
    return rounds[0] | masks
