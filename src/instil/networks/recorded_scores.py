"""A teacher whose scores are a column of the data."""

from __future__ import annotations

from torch import Tensor, nn

from instil.core import Batch


class RecordedScores(nn.Module):
    """Scores of the passages that another program wrote into the data."""

    reads_scores = True

    def forward(self, batch: Batch) -> Tensor:
        """Return the batch's ``teacher_scores`` (N, D).

        Raises:
            ValueError: if the data have no such scores.
        """
        if "teacher_scores" not in batch:
            raise ValueError(
                "recorded_scores: the data have no teacher scores. Set data.scores to the field "
                "with one score for the positive passage and each negative one"
            )
        scores: Tensor = batch["teacher_scores"]
        return scores


def recorded_scores() -> nn.Module:
    """Build the teacher whose scores are those in the data (source ``passages``)."""
    return RecordedScores()
