"""Texts that the teacher generates once per sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.functional.group_policy import answer_tokens
from instil.generation.lockstep import Lockstep
from instil.generation.reader import idle_row, index_batch
from instil.generation.sampling import sample_tokens
from instil.schemes.bases.writer import GenerativeScheme

TEXT = ("input_ids", "attention_mask", "valid", "token")
"""Batch keys of a cached text."""
VerifyTokens = Callable[[Tensor, Tensor], Tensor]
"""Maps generated tokens and those of the data's answers (N, T) to whether they are correct (N,)."""
MIN_TEXTS = 64
"""Number of texts without an accepted one that is an error."""


class TeacherTexts:
    """Texts that the teacher writes after the prompts, cached by sample.

    A text depends only on the seed and the sample. The cache is not part of a scheme's state: a
    lost text is generated again, unchanged.

    Args:
        verify: check of the texts; None: every text is used.
        candidates: largest number of texts per sample; the first correct one is used.
    """

    def __init__(self, verify: VerifyTokens | None = None, candidates: int = 1) -> None:
        self.verify = verify
        self.candidates = candidates
        # Sample index -> (4, T).
        self.cache: dict[int, Tensor] = {}
        self.num_accepted = 0
        self.newest_step = 0
        self.is_resumed = False

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
        step = int(batch.get("step", 0))
        # After a resumption, accepted texts of earlier steps are not known.
        self.is_resumed |= step > self.newest_step + 1
        self.newest_step = step
        self._fill(scheme, batch, has_text, index)
        own = batch | {
            "valid": torch.zeros_like(batch["valid"]),
            "token": torch.full_like(batch["input_ids"], UNLABELLED),
        }
        fallback = torch.stack([own[key].long().cpu() for key in TEXT], 1)
        rows = [
            self.cache[sample] if is_counted else fallback[row]
            for row, (sample, is_counted) in enumerate(zip(index, has_text.tolist(), strict=True))
        ]
        # A text may have been written for a batch of another width.
        width = max(row.shape[1] for row in rows)
        packed = torch.stack([_widened(row, width) for row in rows], 1).to(has_text.device)
        texts = {key: text.to(own[key].dtype) for key, text in zip(TEXT, packed, strict=True)}
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
        lockstep = Lockstep([scheme.teacher])
        if not lockstep.any(bool(missing)):
            if has_text.any():
                self._check_accepted(batch, is_seen=True)
            return
        # The random numbers depend on the step, and a scheduled temperature on the progress; at the
        # start of the training a text is the same in every epoch, and after a resumption.
        first = batch | {"step": torch.tensor(0), "progress": torch.tensor(0.0)}
        rows = torch.tensor(missing, dtype=torch.int64, device=has_text.device)
        text = _generate(scheme, first, rows)
        if self.verify is not None:
            self._verify(scheme, first, rows, text, lockstep)
        # On the CPU, because the cache grows to the texts of the whole data set.
        packed = torch.stack([text[key].long() for key in TEXT], 1).cpu()
        self.cache.update(zip((index[row] for row in missing), packed, strict=True))
        self._check_accepted(batch, is_seen=not missing)

    def _verify(
        self,
        scheme: GenerativeScheme,
        batch: Batch,
        rows: Tensor,
        text: Batch,
        lockstep: Lockstep,
    ) -> None:
        """Replace wrong texts of rows by further candidates, in place; wrong ones do not count."""
        assert self.verify is not None
        reference = batch["label"].masked_fill(~batch["valid"], UNLABELLED)[rows]
        is_correct = self.verify(answer_tokens(text["token"], reference), reference)
        for index in range(1, self.candidates):
            wrong = (~is_correct).nonzero().squeeze(1)
            if not lockstep.any(bool(len(wrong))):
                break
            # A stream of its own per candidate: a text does not depend on the other rows.
            other = _generate(scheme, batch, rows[wrong], f"scheme.text.{index}")
            for key in TEXT:
                text[key][wrong] = other[key]
            answers = answer_tokens(other["token"], reference[wrong])
            is_correct[wrong] = self.verify(answers, reference[wrong])
        text["valid"] &= is_correct[:, None]
        text["token"].masked_fill_(~is_correct[:, None], UNLABELLED)
        self.num_accepted += int(is_correct.sum())

    def _check_accepted(self, batch: Batch, is_seen: bool) -> None:
        """Raise ValueError if no text was accepted, and the training learns nothing.

        Args:
            batch: batch of the step.
            is_seen: whether all prompts of the batch have had a text before.
        """
        if self.verify is None or self.num_accepted:
            return
        # Few prompts may all be unsolved in the first batch, which is also read before training.
        step, progress = int(batch.get("step", 0)), float(batch.get("progress", 0.0))
        # In the last step, progress is step / (step + 1).
        is_last = progress * (step + 1) > step - 0.2
        is_late = step > 0 and (is_seen or is_last) and not self.is_resumed
        if len(self.cache) >= MIN_TEXTS or is_late:
            raise ValueError(
                f"scheme.verified: the verifier accepted none of the first {len(self.cache)} texts "
                "of the teacher. Expected a teacher that solves some prompts. Raise "
                "scheme.candidates and the sampling temperature, or check data.verifier"
            )


def _widened(text: Tensor, width: int) -> Tensor:
    """Packed text (4, T) with padding up to ``width``."""
    wide = F.pad(text, (0, width - text.shape[1]))
    wide[TEXT.index("token"), text.shape[1] :] = UNLABELLED
    return wide


def _generate(
    scheme: GenerativeScheme, batch: Batch, rows: Tensor, stream: str = "scheme.text"
) -> Batch:
    """Texts of the teacher for some rows of a batch.

    Without rows, the process takes part in the passes of a sharded teacher.
    """
    assert scheme.teacher is not None
    text = scheme.generate_with(
        index_batch(batch, rows) if len(rows) else idle_row(batch),
        [scheme.teacher],
        lambda logits, uniforms: sample_tokens(
            logits[0], uniforms[:, 0], *scheme.sampling.distribution(batch)
        ),
        stream,
    )
    return text if len(rows) else index_batch(text, rows)
