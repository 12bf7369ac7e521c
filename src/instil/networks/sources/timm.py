"""Source ``timm:``: image models of the library timm."""

from __future__ import annotations

from typing import Any

from torch import nn

from instil.cards import suggestion
from instil.networks.inputs import timm_input
from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.named_outputs import NamedOutputs


class TimmSource(ModelSource):
    """Models of ``timm.create_model``, with its options.

    The option ``features_only: true`` gives a backbone whose output is ``features``, and
    ``num_classes: 0`` one whose output is ``embedding``.
    """

    package = "timm"
    extra = "vision"
    has_weights = True

    def build(self, request: ModelRequest) -> nn.Module:
        channels = request.fact("channels")
        timm = self.library(request.spec)
        names = timm.list_models()
        # A tag after the dot, such as resnet18.a1_in1k, selects weights.
        if request.name.split(".")[0] not in names:
            raise ValueError(
                f"timm has no model '{request.name}'.{suggestion(request.name, names)}"
            )
        options = {"in_chans": channels} | request.options
        role = _role(options)
        if not role:
            options = {"num_classes": request.fact("classes")} | options
        model: Any = request.create(
            lambda: timm.create_model(request.name, pretrained=request.loads_weights, **options)
        )
        expects = timm_input(
            model.pretrained_cfg if hasattr(model, "pretrained_cfg") else model.default_cfg,
            request.pretrained,
            options["in_chans"],
            options.get("img_size"),
        )
        if role:
            model = NamedOutputs(model, role)
        model.expects = expects
        return model  # type: ignore[no-any-return]


def _role(options: dict[str, Any]) -> str:
    """Role of the output of a model without a classifier; empty for a classifier."""
    if options.get("features_only"):
        return "features"
    return "embedding" if options.get("num_classes") == 0 else ""
