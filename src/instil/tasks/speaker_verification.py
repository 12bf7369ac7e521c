"""Speaker verification by the similarity of embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Card, to_float32
from instil.metrics.equal_error_rate import EqualErrorRate
from instil.tasks.bases.audio_call import call_recordings
from instil.tasks.bases.audio_task import AudioTask
from instil.tasks.bases.task import Evaluation


class SpeakerVerification(AudioTask):
    """Verification of speakers; ``embedding`` (N, D) of a recording.

    The metric is the equal error rate of the cosine similarity over all pairs of the first 2,000
    test recordings, whose speakers need not be in the training data. A model without a teacher
    learns from ``logits`` of the training speakers.

    Labels are int64 (N,), the index of the speaker; -100 for no label.
    """

    card = Card("Speaker verification", tasks=("speaker_verification",))
    title = "speaker verification"
    has_open_classes = True
    roles = ("embedding",)
    headline = "equal_error_rate"
    higher_is_better = False
    baselines: ClassVar = {"single": ("alone",)}
    call = staticmethod(call_recordings)

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute the equal error rate, and the mean cosine similarity with the teacher.

        Args:
            net: network to evaluate.
            batches: batches of the test data; recordings without a label are ignored.
            teacher: network for ``agreement``, the mean cosine similarity of its embeddings with
                the student's, if both have the same width.

        Raises:
            ValueError: without two recordings of one speaker, or of two speakers.
        """
        error_rate = EqualErrorRate()
        similarities: list[Tensor] = []
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            error_rate.update(outputs, batch)
            rows = batch["label"] != UNLABELLED
            embedding = to_float32(outputs["embedding"].detach())[rows].cpu()
            other = teacher_outputs.get("embedding")
            if other is not None and other.shape[1] == embedding.shape[1]:
                other = to_float32(other.detach())[rows].cpu()
                similarities.append(F.cosine_similarity(embedding, other))
        metrics = {"equal_error_rate": error_rate.compute()}
        if similarities:
            # Embeddings in opposite directions have a similarity below 0 and agree in nothing.
            metrics["agreement"] = max(0.0, float(torch.cat(similarities).mean()))
        return metrics, {}
