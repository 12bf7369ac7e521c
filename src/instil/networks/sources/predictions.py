"""Source ``predictions:``: predictions in a file, such as ``predictions:teacher.npz``."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.predictions_model import PredictionsModel
from instil.networks.unknown_options import check_options


class PredictionsSource(ModelSource):
    """Files of logits or probabilities by the key of a sample; they are teachers only.

    See ``instil.networks.prediction_file`` for the format. There are no options.
    """

    learns_by = "nothing"
    by_index = True

    def build(self, request: ModelRequest) -> nn.Module:
        check_options(request.spec, request.options, ())
        return PredictionsModel(request.path)

    def files(self, request: ModelRequest) -> list[Path]:
        return [request.path]
