"""Images of conversations, prepared by the processor of a vision-language model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instil.data.image_files import open_image

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Files of a folder with a processor of images."""


class ImageProcessor:
    """Processor of a vision-language model.

    Args:
        folder: folder of the model, with its tokenizer and processor.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._loaded: Any = None

    @classmethod
    def of(cls, tokenizer: Any) -> ImageProcessor | None:
        """Return the processor of images in the folder of a tokenizer; None if there is none."""
        source: Path | None = getattr(tokenizer, "source", None)
        if source is None:
            return None
        for name in PROCESSOR_FILES:
            file = source.parent / name
            # Processors of audio have the same files, with a feature extractor.
            if file.is_file() and "image_processor" in file.read_text(encoding="utf-8"):
                return cls(source.parent)
        return None

    def __getstate__(self) -> dict[str, Any]:
        # Other processes load it again: it is larger than its folder's name.
        return vars(self) | {"_loaded": None}

    def digest(self) -> str:
        """Return the SHA-256 of the configuration."""
        paths = [self.folder / name for name in PROCESSOR_FILES]
        content = b"".join(path.read_bytes() for path in paths if path.is_file())
        return hashlib.sha256(content).hexdigest()

    @property
    def processor(self) -> Any:
        """The processor of transformers."""
        if self._loaded is None:
            import transformers

            auto: Any = transformers.AutoProcessor
            self._loaded = auto.from_pretrained(str(self.folder))
        return self._loaded

    @property
    def token(self) -> str:
        """Placeholder of an image in the text."""
        return str(getattr(self.processor, "image_token", "<image>"))

    @cached_property
    def token_id(self) -> int:
        """Token in whose place the features of an image are; -1 if there is none."""
        index = self.processor.tokenizer.convert_tokens_to_ids(self.token)
        return -1 if index is None else int(index)

    def expanded(
        self, tokens: NDArray[Any], sources: Sequence[str], where: str
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Replace the placeholder of each image by the tokens of its features.

        Args:
            tokens: tokens of a text (T,).
            sources: files or data URLs of its images.
            where: file and line, for messages.

        Returns:
            The tokens (T',), and for each the index of its token in the text, -1 for an image.

        Raises:
            ValueError: for another number of images than placeholders, and images that cannot be
                read.
        """
        positions = (tokens == self.token_id).nonzero()[0].tolist()
        if len(positions) != len(sources):
            raise ValueError(
                f"{where}: {len(sources)} images for {len(positions)} placeholders {self.token} in "
                "the text. Expected one image for each placeholder"
            )
        if not positions:
            return tokens, np.arange(len(tokens))
        new_tokens: list[int] = []
        origin: list[int] = []
        start = 0
        for position, source in zip(positions, sources, strict=True):
            run = self._tokens_of(open_image(source, where))
            new_tokens += [*tokens[start:position].tolist(), *run]
            origin += [*range(start, position), *[-1] * len(run)]
            start = position + 1
        new_tokens += tokens[start:].tolist()
        origin += range(start, len(tokens))
        return np.array(new_tokens, np.int64), np.array(origin, np.int64)

    def _tokens_of(self, image: Any) -> list[int]:
        """Tokens in whose place the features of an image are, with those around them."""
        result = self.processor(text=[self.token], images=[image], add_special_tokens=False)
        return [int(token) for token in result["input_ids"][0]]

    def inputs(self, sources: Sequence[str]) -> dict[str, Any]:
        """Return the inputs of a model for images, as tensors of PyTorch.

        Args:
            sources: files or data URLs.
        """
        images = [open_image(source, "data.files") for source in sources]
        outputs = self.processor.image_processor(images=images, return_tensors="pt")
        return {name: value for name, value in outputs.items() if hasattr(value, "shape")}


def check_image_options(truncation: str, packing: bool, prune: bool) -> None:
    """Check options of the source for texts with images.

    Args:
        truncation: handling of long texts.
        packing: whether rows hold several texts.
        prune: whether the vocabulary is reduced.

    Raises:
        ValueError: for an option that texts with images do not have.
    """
    problems = {
        f"truncation: {truncation} would cut the tokens of an image. Expected error or drop": (
            truncation not in ("error", "drop")
        ),
        "packing: images belong to one text. Expected false": packing,
        "prune: the model knows its tokens of images by number. Expected false": prune,
    }
    for problem, is_set in problems.items():
        if is_set:
            raise ValueError(f"{problem} for rows with images")
