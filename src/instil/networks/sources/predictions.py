"""Source ``predictions:``: predictions in a file, such as ``predictions:teacher.npz``."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.predictions_model import PredictionsModel


class PredictionsSource(ModelSource):
    """Files of logits or probabilities by the key of a sample; they are teachers only.

    See ``instil.networks.prediction_file`` for the format. There are no options.
    """

    learns_by = "nothing"
    by_index = True

    def build(self, request: ModelRequest) -> nn.Module:
        if request.options:
            raise ValueError(
                f"{request.spec} has no option '{next(iter(request.options))}'. Expected none"
            )
        return PredictionsModel(request.path)

    def files(self, request: ModelRequest) -> list[Path]:
        return [request.path]
