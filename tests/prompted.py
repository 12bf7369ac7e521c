"""A small model that segments prompted objects, and batches for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch

SIZE = 8
WIDTH = 4


class Encoded(NamedTuple):
    last_hidden_state: Tensor


class Masks(NamedTuple):
    pred_masks: Tensor
    iou_scores: Tensor


class Encoder(nn.Module):
    """One convolution to half the resolution, and a neck."""

    image_size = SIZE

    def __init__(self, hidden: int, norm: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, hidden, 3, 2, 1)
        self.norm = nn.BatchNorm2d(hidden) if norm else nn.Identity()
        self.neck = nn.Conv2d(hidden, WIDTH, 1)

    def forward(self, pixel_values: Tensor) -> Encoded:
        return Encoded(self.neck(self.norm(self.stem(pixel_values)).relu()))


class PromptEncoder(nn.Module):
    """Sum of linear maps of the coordinates; points with the label -10 are ignored."""

    input_image_size = 16

    def __init__(self) -> None:
        super().__init__()
        self.box = nn.Linear(4, WIDTH)
        self.point = nn.Linear(3, WIDTH)

    def forward(self, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None) -> Tensor:
        prompt = torch.zeros(())
        if boxes is not None:
            prompt = prompt + self.box(boxes / self.input_image_size)
        if points is not None:
            assert labels is not None
            entries = [points / self.input_image_size, labels[..., None].float()]
            is_counted = (labels != -10)[..., None]
            prompt = prompt + (self.point(torch.cat(entries, -1)) * is_counted).sum(2)
        return prompt


class PromptNet(nn.Module):
    """The parts and the arguments of ``SamModel`` of transformers."""

    def __init__(self, hidden: int = 6, norm: bool = False, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.vision_encoder = Encoder(hidden, norm)
        self.prompt_encoder = PromptEncoder()
        self.mask_decoder = nn.ModuleList([nn.Conv2d(WIDTH, 3, 1), nn.Linear(WIDTH, 3)])

    def forward(
        self,
        image_embeddings: Tensor,
        input_points: Tensor | None = None,
        input_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        input_masks: Tensor | None = None,
        multimask_output: bool = True,
    ) -> Masks:
        assert multimask_output
        prompt: Any = self.prompt_encoder(input_points, input_labels, input_boxes)
        mixed = image_embeddings[:, None] * (1 + prompt)[..., None, None]
        if input_masks is not None:
            mixed = mixed + F.avg_pool2d(input_masks, 4)[:, None]
        masks = self.mask_decoder[0](mixed.flatten(0, 1)).unflatten(0, mixed.shape[:2])
        return Masks(masks, self.mask_decoder[1](prompt).sigmoid())


def batch(size: int = 12, seed: int = 0) -> Batch:
    """Images of bright rectangles, a third of them without a label."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 4, (size, 2), generator=generator)
    extent = torch.randint(2, 5, (size, 2), generator=generator)
    last = corner + extent - 1
    grid = torch.arange(SIZE)
    inside = [(grid >= corner[:, i, None]) & (grid <= last[:, i, None]) for i in range(2)]
    mask = inside[1][:, :, None] & inside[0][:, None]
    image = 0.5 * torch.rand(size, 1, SIZE, SIZE, generator=generator) + 0.5 * mask[:, None]
    label = mask.long()
    label[1::3] = UNLABELLED
    label[0, 0] = UNLABELLED
    return {
        "image": image,
        "box": torch.cat([corner, last], 1),
        "points": corner[:, None] + extent[:, None] // 2,
        "point_labels": torch.ones(size, 1, dtype=torch.int64),
        "label": label,
        "index": torch.arange(size),
    }


def sam_config(channels: int = 1) -> dict[str, Any]:
    """Configuration of a tiny SAM of transformers."""
    vision = {
        "image_size": 16,
        "patch_size": 4,
        "num_channels": channels,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "window_size": 0,
        "global_attn_indexes": [0],
        "output_channels": 8,
        "num_pos_feats": 4,
        "initializer_range": 0.02,
    }
    prompts = {"hidden_size": 8, "image_size": 16, "patch_size": 4, "mask_input_channels": 4}
    masks = {
        "hidden_size": 8,
        "mlp_dim": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 8,
    }
    return {
        "model_type": "sam",
        "vision_config": vision,
        "prompt_encoder_config": prompts,
        "mask_decoder_config": masks,
    }
