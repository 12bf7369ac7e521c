"""A small batch of each task, and a network with dropout and running statistics for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch
from instil.modules.denoiser import Denoiser
from instil.networks.audio_classifier import audio_classifier
from instil.networks.speech_recognizer import speech_recognizer
from instil.testing.task import Probe
from tests import prompted


def images(kind: str = "single") -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = {"single": (12,), "multi": (12, 4), "binary": (12, 1)}[kind]
    label = torch.randint(0, 4 if kind == "single" else 2, shape, generator=generator)
    label[0] = 3 if kind == "single" else 1
    return {
        "image": torch.rand(12, 1, 4, 4, generator=generator),
        "label": label if kind == "single" else label.float(),
    }


class PixelProbe(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout()
        self.head = nn.Conv2d(1, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.norm(image)))
        return logits


class DepthProbe(PixelProbe):
    """Network of positive depths."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image)[:, :1].exp()


def depths() -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(12, 1, 4, 4, generator=generator)
    label = 0.5 + 3 * torch.rand(12, 4, 4, generator=generator)
    label[0, 0, 0] = -100
    valid = torch.rand(12, 4, 4, generator=generator) > 0.2
    return {"image": image, "label": label, "valid": valid}


def keypoints() -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(12, 1, 4, 4, generator=generator)
    label = 40 * torch.rand(12, 3, 2, generator=generator)
    label[0, 0] = -100
    valid = torch.rand(12, 3, generator=generator) > 0.2
    return {"image": image, "label": label, "valid": valid}


class TextProbe(nn.Module):
    """Network of the mean embedding without padding."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(9, 6)
        self.head = Probe(6, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        is_token = attention_mask[..., None].float()
        logits: Tensor = self.head((self.tokens(input_ids) * is_token).sum(1) / is_token.sum(1))
        return logits


class PairProbe(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = Probe(16, 5)
        self.text = TextProbe(5)
        self.logit_scale = nn.Parameter(torch.ones(1))

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor
    ) -> dict[str, Tensor]:
        return {
            "image_embedding": self.image(pixel_values),
            "text_embedding": self.text(input_ids, attention_mask),
        }


def pixels() -> Batch:
    """Images with void pixels and with valid pixels that have no label."""
    label = torch.arange(12 * 16).reshape(12, 4, 4) % 3
    label[:, 0, :2] = -100
    valid = torch.ones(12, 4, 4, dtype=torch.bool)
    valid[:, 0, 0] = False
    return images() | {"label": label, "valid": valid}


def texts() -> Batch:
    length = torch.arange(12)[:, None] % 4 + 2
    ids = torch.randint(1, 9, (12, 5), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(5) < length).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "label": images()["label"]}


def text_pairs() -> Batch:
    """Each text with a partner of the same tokens in another order."""
    batch = texts()
    ids, mask = (batch[key].flip(1).roll(1, 1) for key in ("input_ids", "attention_mask"))
    return batch | {"partner_input_ids": ids, "partner_attention_mask": mask}


class RankingProbe(nn.Module):
    """Cross-encoder of the tokens."""

    reads_pairs = True

    def __init__(self) -> None:
        super().__init__()
        self.text = TextProbe(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.text(input_ids, attention_mask)
        return logits


def ranked_passages() -> Batch:
    """Queries with four passages of grades 0 to 2; the last passage of some is missing."""
    batch = texts()
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(1, 9, (12, 4, 5), generator=generator)
    mask = (torch.arange(5) < torch.randint(2, 6, (12, 4, 1), generator=generator)).long()
    label = ((torch.arange(12)[:, None] + torch.arange(4)) % 4 - 1).clamp_min(0).float()
    mask[::5, 3] = 0
    label[::5, 3] = -100
    passages = {"passage_input_ids": ids, "passage_attention_mask": mask}
    return batch | passages | {"label": label}


class UserProbe(nn.Module):
    """Scores of four items from the index of a user."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(12, 6)
        self.head = Probe(6, 4)

    def forward(self, user: Tensor) -> Tensor:
        logits: Tensor = self.head(self.users(user))
        return logits


def users() -> Batch:
    return {"user": torch.arange(12), "label": ranked_passages()["label"]}


def nodes() -> Batch:
    """A ring whose last nodes are neighbours only."""
    index = torch.arange(12)
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(2))
    return {
        "x": x,
        "edge_index": torch.stack([index, (index + 1) % 12]),
        "label": images()["label"],
        "valid": index < 9,
    }


def links() -> Batch:
    """Anchors with four candidates among fifteen nodes of a ring, and five further nodes."""
    generator = torch.Generator().manual_seed(7)
    index = torch.arange(20)
    position = torch.stack([torch.randperm(15, generator=generator)[:5] for _ in range(12)])
    label = (torch.arange(12)[:, None] % 4 == torch.arange(4)).float()
    label[::5, 3] = -100
    return {
        "pair_index": position,
        "pair_position": position,
        "end_index": index[:15],
        "x": torch.randn(20, 6, generator=generator),
        "edge_index": torch.stack([index, (index + 1) % 20]),
        "label": label,
    }


def graphs() -> Batch:
    """Graphs of two to five nodes with random edges."""
    generator = torch.Generator().manual_seed(6)
    node_mask = torch.arange(5) < torch.randint(2, 6, (12, 1), generator=generator)
    x = torch.randn(12, 5, 6, generator=generator) * node_mask[..., None]
    adjacency = torch.rand(12, 5, 5, generator=generator) < 0.4
    adjacency &= node_mask[:, :, None] & node_mask[:, None]
    return {"x": x, "adjacency": adjacency, "node_mask": node_mask, "label": images()["label"]}


class GraphProbe(nn.Module):
    """Classifier of the mean over the nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Probe(6, 4)

    def forward(self, x: Tensor, adjacency: Tensor, node_mask: Tensor) -> Tensor:
        mask = node_mask[..., None]
        logits: Tensor = self.inner((x * mask).sum(1) / mask.sum(1))
        return logits


def pairs() -> Batch:
    return {"image": images()["image"]} | texts()


class ViewProbe(nn.Module):
    """Classifier of one view at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Probe(16, 4)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.inner(image)
        return logits


class BoxProbe(nn.Module):
    """Detector of one class with six bins per edge."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Probe(16, 4 + 4 * 6)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits, box_logits = self.inner(image).split([4, 24], 1)
        return logits, box_logits


def boxed_images() -> Batch:
    """One box per image; one box is unknown."""
    start = torch.randint(0, 3, (12, 2), generator=torch.Generator().manual_seed(4))
    box = torch.cat([start, start + 2 + torch.arange(12)[:, None] % 2], 1).float()
    box[5] = -100
    return images() | {"box": box}


def reals() -> Batch:
    """Two numbers per sample; some are unknown."""
    label = torch.randn(12, 2, generator=torch.Generator().manual_seed(3))
    label[0, 0], label[3, 1], label[7] = -100, torch.nan, -100
    return images() | {"label": label}


class NextTokenProbe(nn.Module):
    """Language model that reads one token only."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(9, 6)
        self.head = Probe(6, 9)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.head(self.tokens(input_ids).flatten(0, 1)).unflatten(
            0, input_ids.shape
        )
        return logits


def rows() -> Batch:
    """Padded rows of tokens; some begin with a prompt."""
    batch = texts()
    ids, is_token = batch["input_ids"], batch["attention_mask"].bool()
    valid = torch.zeros_like(is_token)
    valid[:, :-1] = is_token[:, 1:]
    valid[::4, 0] = False
    label = torch.zeros_like(ids)
    label[:, :-1] = ids[:, 1:]
    label[1, 0] = 8
    return {
        "input_ids": ids,
        "attention_mask": batch["attention_mask"],
        "label": label.masked_fill(~valid, -100),
        "valid": valid,
    }


def point_sets() -> Batch:
    points = torch.randn(12, 5, 3, generator=torch.Generator().manual_seed(5))
    return {"points": points, "label": images()["label"]}


def videos() -> Batch:
    video = torch.rand(12, 1, 3, 4, 4, generator=torch.Generator().manual_seed(6))
    return {"video": video, "label": images()["label"]}


class SequenceProbe(nn.Module):
    """Decoder that reads one token and the mean of the encoder's input."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(9, 6)
        self.head = Probe(6, 9)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Any:
        is_token = attention_mask[..., None].float()
        mean = (self.tokens(input_ids) * is_token).sum(1) / is_token.sum(1)
        state = self.tokens(decoder_input_ids) + mean[:, None]
        return self.head(state.flatten(0, 1)).unflatten(0, decoder_input_ids.shape)


def sequences() -> Batch:
    """Texts with targets of one to four tokens and the end token; one sample has no label."""
    batch = texts()
    length = torch.arange(12)[:, None] % 4 + 1
    label = torch.randint(2, 9, (12, 5), generator=torch.Generator().manual_seed(5))
    position = torch.arange(5)
    label = label.masked_fill(position == length, 1).masked_fill(position > length, -100)
    label[0, 0] = 8
    label[7] = -100
    return {
        "input_ids": batch["input_ids"],
        "encoder_attention_mask": batch["attention_mask"],
        "label": label,
        "valid": label != -100,
    }


def several_views() -> Batch:
    views = torch.rand(12, 3, 1, 4, 4, generator=torch.Generator().manual_seed(6))
    return {"views": views, "label": images()["label"]}


def recordings() -> Batch:
    """Frames of recordings of different lengths; two of them have no label."""
    generator = torch.Generator().manual_seed(5)
    label = torch.randint(0, 4, (12,), generator=generator)
    label[:4] = torch.arange(4)
    label[5] = label[9] = -100
    return {
        "audio": torch.randn(12, 8, 5, generator=generator),
        "audio_length": 4 + torch.arange(12) % 5,
        "label": label,
    }


def spoken_texts() -> Batch:
    """Recordings with texts of one to three symbols; class 0 is the blank."""
    batch = recordings()
    label = torch.full((12, 3), -100)
    for row in range(12):
        if row not in (5, 9):
            label[row, : 1 + row % 3] = 1 + (row + torch.arange(1 + row % 3)) % 3
    return batch | {"label": label}


def unconditional_images() -> Batch:
    return images() | {"index": torch.arange(12)}


class ImageNoiseProbe(nn.Module):
    """Unconditional diffusion network of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Probe(16, 16)

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        prediction: Tensor = self.inner(noisy)
        return prediction.view_as(noisy)


def table_rows() -> Batch:
    features = torch.randn(12, 6, generator=torch.Generator().manual_seed(6))
    return {"features": features, "label": images()["label"]}


def table_reals() -> Batch:
    return {"features": table_rows()["features"], "label": reals()["label"]}


class ImageEncoder(nn.Module):
    """Encoder that returns its embedding by name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Probe(16, 6)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.inner(image)}


def partly_labelled_images() -> Batch:
    """Images of three classes, each with several samples, and two without a label."""
    label = torch.arange(12) % 3
    label[5] = label[9] = -100
    return images() | {"label": label}


SAMPLES: dict[str, tuple[Callable[[], Batch], Callable[[], nn.Module] | None]] = {
    "classification": (images, None),
    "segmentation": (pixels, PixelProbe),
    "depth": (depths, DepthProbe),
    "pose": (keypoints, PixelProbe),
    "text_classification": (texts, TextProbe),
    "node_classification": (nodes, None),
    "graph_classification": (graphs, GraphProbe),
    "link_prediction": (links, lambda: Probe(6, 5)),
    "regression": (reals, None),
    "point_classification": (point_sets, None),
    "multi_view_classification": (several_views, ViewProbe),
    "tabular_classification": (table_rows, None),
    "tabular_regression": (table_reals, None),
    "video_classification": (videos, None),
    "detection": (boxed_images, BoxProbe),
    "language": (rows, NextTokenProbe),
    "image_text": (pairs, PairProbe),
    "sentence_embedding": (text_pairs, TextProbe),
    "seq2seq": (sequences, SequenceProbe),
    "speech_recognition": (spoken_texts, lambda: speech_recognizer(4, 5, 8, 2, 3, 1)),
    "audio_classification": (recordings, lambda: audio_classifier(4, 5, 8, 2, 3, 1, 1)),
    "speaker_verification": (recordings, lambda: audio_classifier(4, 5, 8, 2, 3, 2)),
    "ranking": (ranked_passages, RankingProbe),
    "recommendation": (users, UserProbe),
    "diffusion": (unconditional_images, lambda: Denoiser(ImageNoiseProbe(), steps=2)),
    "representation": (partly_labelled_images, ImageEncoder),
    "promptable_segmentation": (prompted.batch, lambda: prompted.PromptNet(norm=True)),
}
