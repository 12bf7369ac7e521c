"""Texts that the teacher generates once per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.generation.reader import index_batch
from instil.generation.sampling import sample_tokens
from instil.schemes.bases.writer import GenerativeScheme

TEXT = ("input_ids", "attention_mask", "valid", "token")
"""Batch keys of a cached text."""


class TeacherTexts:
    """Texts that the teacher writes after the prompts, cached by sample.

    A text depends only on the seed and the sample. The cache is not part of a scheme's state: a
    lost text is generated again, unchanged.
    """

    def __init__(self) -> None:
        # Sample index -> (4, T).
        self.cache: dict[int, Tensor] = {}

    def replace_text(self, scheme: GenerativeScheme, batch: Batch) -> Batch:
        """Replace the text after the prompts by text of the teacher.

        Args:
            scheme: the scheme, whose teacher generates with its sampling options.
            batch: rows of tokens with ``valid`` (N, T) and ``index`` (N,).

        Returns:
            The batch with the generated ``input_ids``, ``attention_mask``, ``valid`` and ``token``.
            The tokens are also the ``label``. Rows without a valid position get no text.
        """
        has_text = batch["valid"].any(1)
        index = batch["index"].tolist()
        self._fill(scheme, batch, has_text, index)
        fallback = batch | {
            "valid": torch.zeros_like(batch["valid"]),
            "token": torch.full_like(batch["input_ids"], UNLABELLED),
        }
        empty = torch.zeros(len(TEXT), batch["input_ids"].shape[1], dtype=torch.int64)
        rows = torch.stack([self.cache.get(sample, empty) for sample in index], 1)
        texts = {
            key: torch.where(has_text[:, None], text.to(fallback[key].dtype), fallback[key])
            for key, text in zip(TEXT, rows.to(has_text.device), strict=True)
        }
        return batch | texts | {"label": texts["token"]}

    def _fill(
        self, scheme: GenerativeScheme, batch: Batch, has_text: Tensor, index: Sequence[int]
    ) -> None:
        """Generate the texts of the rows that count and are not in the cache."""
        missing = [
            row
            for row, counts in enumerate(has_text.tolist())
            if counts and index[row] not in self.cache
        ]
        if not missing:
            return
        rows = index_batch(batch, torch.tensor(missing, device=has_text.device))
        # The random numbers depend on the step; at step 0 a text is the same in every epoch.
        text = _generate(scheme, rows | {"step": torch.tensor(0)})
        # On the CPU, because the cache grows to the texts of the whole data set.
        packed = torch.stack([text[key].long() for key in TEXT], 1).cpu()
        self.cache.update(zip((index[row] for row in missing), packed, strict=True))


def _generate(scheme: GenerativeScheme, batch: Batch) -> Batch:
    assert scheme.teacher is not None
    return scheme.generate_with(
        batch,
        [scheme.teacher],
        lambda logits, uniforms: sample_tokens(
            logits[0], uniforms[:, 0], *scheme.sampling.distribution(batch)
        ),
    )
