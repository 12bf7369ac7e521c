"""Speaker verification: error rates, and students of embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil import distil
from instil.core import Net
from instil.metrics.equal_error_rate import EqualErrorRate
from instil.tasks.speaker_verification import SpeakerVerification
from tests.tasks.samples import recordings


class MeanEmbedding(nn.Module):
    """Teacher of a library with embeddings only, as a user would wrap it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(5, width)

    def forward(self, audio: Tensor, audio_length: Tensor) -> dict[str, Any]:
        return {"embedding": self.head(audio.mean(1))}


@pytest.mark.parametrize("name", ["embedding_regression", "rkd"])
def test_a_student_learns_the_embeddings_of_its_teacher(name: str) -> None:
    torch.manual_seed(0)
    batch = {key: value for key, value in recordings().items() if key != "label"}
    teacher, student = MeanEmbedding(3), MeanEmbedding(3)
    result = distil(
        *(teacher, student, [batch | {"label": torch.full((12,), -100)}] * 10, name),
        task="speaker_verification",
        epochs=20,
        lr=5e-2,
        progress=False,
    )
    losses = [record["losses"][f"student/{name}"] for record in result.records]
    assert losses[-1] < losses[0] / 2
    if name == "embedding_regression":
        task = SpeakerVerification()
        metrics, _ = task.evaluate(student, [recordings()], Net(teacher, task.call))
        assert metrics["agreement"] > 0.9


def test_the_metric_compares_all_labelled_pairs_of_all_batches() -> None:
    task = SpeakerVerification()
    torch.manual_seed(0)
    model = MeanEmbedding(3)
    batch = recordings()
    rate = task.evaluate(model, [batch])[0]["equal_error_rate"]
    parts = [
        {key: value[rows] for key, value in batch.items()} for rows in (slice(5), slice(5, 12))
    ]
    assert task.evaluate(model, parts)[0]["equal_error_rate"] == pytest.approx(rate)
    metric = EqualErrorRate()
    metric.update({"embedding": model.head(batch["audio"].mean(1))}, batch)
    assert rate == pytest.approx(metric.compute(), abs=1e-6)
    with pytest.raises(ValueError, match="no pair of one class"):
        task.evaluate(model, [batch | {"label": torch.arange(12)}])
