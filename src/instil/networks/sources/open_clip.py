"""Source ``open_clip:``: image and text networks of the library open_clip."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instil.cards import suggestion
from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.unknown_options import option_names


class OpenClip(nn.Module):
    """Image and text network of open_clip, called like CLIP of transformers.

    Args:
        model: ``open_clip.CLIP`` or a model with the same methods.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute ``image_embedding``, ``text_embedding`` (N, D) and ``logit_scale`` (1,).

        Args:
            input_ids: (N, L); padded to the length of the model.
            pixel_values: (N, C, H, W).
            attention_mask: ignored; open_clip reads the embedding at the largest token id, or at
                the last one.
        """
        length = getattr(self.model, "context_length", input_ids.shape[1])
        if input_ids.shape[1] > length:
            raise ValueError(
                f"a text of {input_ids.shape[1]} tokens is longer than the {length} of this model"
            )
        missing = length - input_ids.shape[1]
        input_ids = nn.functional.pad(input_ids, (0, missing))
        return {
            "image_embedding": self.model.encode_image(pixel_values, normalize=True),
            "text_embedding": self.model.encode_text(input_ids, normalize=True),
            "logit_scale": self.model.logit_scale.exp().reshape(1),
        }


class OpenClipSource(ModelSource):
    """Models of ``open_clip.create_model``, such as ``open_clip:ViT-B-32``, with its options.

    ``open_clip:CLIP`` builds a model of its own size from ``embed_dim``, ``vision_cfg`` and
    ``text_cfg``. The option ``pretrained_tag`` names the weights that ``pretrained: true`` loads.
    The texts must have the tokens of the model.
    """

    package = "open_clip"
    extra = "clip"
    has_weights = True

    def build(self, request: ModelRequest) -> nn.Module:
        open_clip = self.library(request.spec)
        options = dict(request.options)
        tag = options.pop("pretrained_tag", None)
        if request.name == "CLIP":
            if request.loads_weights:
                raise ValueError(f"{request.spec}: no pretrained weights. Set `weights`")
            names = option_names(open_clip.CLIP)
            model = request.create(lambda: open_clip.CLIP(**options), names=names)
        else:
            names = open_clip.list_models()
            if request.name not in names:
                raise ValueError(
                    f"open_clip has no model '{request.name}'. Expected a name of "
                    "open_clip.list_models(), or CLIP for a model of another size."
                    f"{suggestion(request.name, names)}"
                )
            tag = _tag(open_clip, request, tag) if request.loads_weights else None
            model = request.create(
                lambda: open_clip.create_model(request.name, pretrained=tag, **options)
            )
        wrapped: Any = OpenClip(model)
        wrapped.expects = _expected_input(model.visual)
        return wrapped  # type: ignore[no-any-return]


def _tag(open_clip: Any, request: ModelRequest, tag: str | None) -> str:
    tags: list[str] = open_clip.list_pretrained_tags_by_model(request.name)
    if tag is None or tag not in tags:
        raise ValueError(
            f"{request.spec}: pretrained needs the option pretrained_tag. Expected one of "
            f"{', '.join(tags)}, got {tag}"
        )
    return tag


def _expected_input(visual: Any) -> dict[str, Any]:
    """Size and normalisation of the images of a vision tower."""
    expects: dict[str, Any] = {}
    for option, name in (("size", "image_size"), ("mean", "image_mean"), ("std", "image_std")):
        value = getattr(visual, name, None)
        if value is not None:
            expects[option] = tuple(value) if isinstance(value, (list, tuple)) else value
    return {key: _plain(value) for key, value in expects.items()}


def _plain(value: Any) -> Any:
    return tuple(value.tolist()) if isinstance(value, torch.Tensor) else value
