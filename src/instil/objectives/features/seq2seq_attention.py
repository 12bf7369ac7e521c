"""Attention transfer of encoder-decoders: the attention maps of encoder, decoder and both."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.feature_maps import require_dims
from instil.functional.hidden_states import Layers, layer_map, layer_tensors, masked_mean
from instil.functional.logits import apply_reduction
from instil.items import Items

Part = Literal["encoder", "decoder", "cross"]
ROLES: dict[str, str] = {
    "encoder": "encoder_attentions",
    "decoder": "decoder_attentions",
    "cross": "cross_attentions",
}
"""Part -> role of its attention probabilities, one (N, heads, L, S) per layer."""
SMALLEST = 1e-8
"""Smallest probability of a logarithm; the probability of a masked key is exactly 0."""


def seq2seq_attention_loss(
    student_attention: Tensor,
    teacher_attention: Tensor,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(teacher || student) of attention probabilities, averaged over the heads of each side.

    The divergence of MiniLM (Wang et al. 2020, Eq. 1), between means over the heads, so that the
    numbers of heads may differ. Mean over the queries that count.

    Args:
        student_attention: probabilities (N, heads, L, S).
        teacher_attention: probabilities (N, heads, L, S).
        mask: (N, L), 1 for queries that count. None: all count.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if samples, queries or keys differ.

    Example:
        >>> import torch
        >>> uniform = torch.full((1, 2, 1, 2), 0.5)
        >>> seq2seq_attention_loss(uniform, torch.tensor([[[[0.9, 0.1]]]]))
        tensor(0.3681)
    """
    require_dims(student_attention, 4, "student_attention")
    require_dims(teacher_attention, 4, "teacher_attention")
    student_map = to_float32(student_attention).mean(1)
    teacher_map = to_float32(teacher_attention).mean(1)
    if student_map.shape != teacher_map.shape:
        raise ValueError(
            f"attentions are {tuple(student_attention.shape)} and "
            f"{tuple(teacher_attention.shape)}. Expected equal numbers of samples, queries and "
            "keys. Give teacher and student encoders of one stride"
        )
    if mask is not None:
        # Padding may hold NaN, which a later factor of 0 would not remove.
        student_map = student_map.masked_fill(mask[..., None] == 0, 1.0)
        teacher_map = teacher_map.masked_fill(mask[..., None] == 0, 1.0)
    student_log = student_map.clamp_min(SMALLEST).log()
    teacher_log = teacher_map.clamp_min(SMALLEST).log()
    values = (teacher_map * (teacher_log - student_log)).sum(-1)
    return apply_reduction(masked_mean(values, mask), reduction)


class Seq2SeqAttention(Objective):
    """Agreement of the attention maps of the paired layers; mean over the layers, sum over parts.

    Layer m of M student layers learns from layer m N / M of N teacher layers.
    """

    card = Card(
        "MiniLM: deep self-attention distillation for task-agnostic compression of pre-trained "
        "transformers (attention transfer of encoder-decoders)",
        "https://arxiv.org/abs/2002.10957",
        "NeurIPS",
        2020,
        source="features",
        algorithms=("attention",),
        tasks=("seq2seq",),
        deviations="The paper compares the heads of the last layer of an encoder. Here the "
        "attention to the encoder is compared too, in all layers, between means over the heads.",
        equation=r"\sum_{r} \frac{1}{M L} \sum_{m=1}^{M} \sum_{x=1}^{L} \mathrm{KL}\left( "
        r"\bar A^t_{r, g(m), x} \Vert \bar A^s_{r, m, x} \right), \quad "
        r"\bar A = \frac{1}{H} \sum_h A_h",
        use="Beside a loss of tokens, for encoder-decoders that must learn which input each "
        "output token belongs to. Widths, depths and heads may differ.",
        pitfalls="The networks must return attentions, which fused attention does not: set "
        "attn_implementation: eager for models of transformers.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), tuple((r,) for r in ROLES.values()))
    items = Items(per_sample=True)

    def __init__(
        self,
        parts: Annotated[
            Literal["all", "encoder", "decoder", "cross"],
            Doc(
                "attentions that are compared: within the encoder, within the decoder, from the "
                "decoder to the encoder, or all three"
            ),
        ] = "all",
        layers: Annotated[
            Layers,
            Doc(
                "pairs [[student layer, teacher layer], ...] in each part, the first layer is 1. "
                "uniform: student layers spread over the teacher's. last: the last layers"
            ),
        ] = "uniform",
    ) -> None:
        super().__init__()
        self.parts = parts
        self.layers = layers

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        terms = []
        for part, role in ROLES.items():
            if self.parts not in ("all", part):
                continue
            student_maps = layer_tensors(student, role)
            teacher_maps = layer_tensors(teacher, role)
            pairs = layer_map(self.layers, len(student_maps), len(teacher_maps))
            mask = _query_mask(batch, part, student_maps[0])
            values = [
                seq2seq_attention_loss(student_maps[i - 1], teacher_maps[j - 1], mask, "none")
                for i, j in pairs
            ]
            terms.append(torch.stack(values).mean(0))
        return torch.stack(terms).sum(0)


def _query_mask(batch: Batch, part: str, attention: Tensor) -> Tensor | None:
    """Mask (N, L) of the queries of a part; None where all count."""
    mask = batch.get("encoder_attention_mask" if part == "encoder" else "valid")
    # The states of an encoder with a stride have no mask of their own.
    if mask is None or mask.shape != (attention.shape[0], attention.shape[2]):
        return None
    result: Tensor = mask
    return result
