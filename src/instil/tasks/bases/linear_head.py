"""Output heads of language models that are matrix products."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from instil.roles import Projection


class LinearHead(NamedTuple):
    """Output head that is a matrix product.

    Attributes:
        weight: (V, H), or (V, R) with ``down``.
        bias: (V,), if the head has one.
        down: first factor of a head of low rank, from H to R.
        lora: factors (A, B) of a LoRA adapter, B with its scaling.
    """

    weight: Tensor
    bias: Tensor | None = None
    down: nn.Linear | None = None
    lora: tuple[Tensor, Tensor] | None = None

    def project(
        self, hidden: Tensor, scale: float = 1.0, softcap: float | None = None
    ) -> Projection:
        """Return the logits of hidden states as a projection; its tensors are views of parameters.

        Args:
            hidden: hidden states (..., H).
            scale: factor of the logits.
            softcap: c in c tanh(x / c) of the scaled logits; None for no limit.
        """
        bias = self.bias
        return Projection(
            hidden if self.down is None else self.down(hidden),
            self.weight.view_as(self.weight),
            None if bias is None else bias.view_as(bias),
            None if scale == 1 else scale,
            softcap,
            self.lora,
        )


def linear_head(head: Any) -> LinearHead | None:
    """Describe an output head as a matrix product.

    Args:
        head: result of ``get_output_embeddings()``.

    Returns:
        The parts of the head. None where the product is not exact: other modules, DoRA, an adapter
        with a bias or with dropout, several active adapters.
    """
    if hasattr(head, "modules_to_save"):
        trained = [name for name in head.active_adapters if name in head.modules_to_save]
        if trained and not head.disable_adapters:
            return linear_head(head.modules_to_save[trained[0]])
        return linear_head(head.original_module)
    if hasattr(head, "lora_A"):
        return _lora_head(head)
    if isinstance(getattr(head, "down", None), nn.Linear) and not list(head.children())[1:]:
        return LinearHead(head.weight, getattr(head, "bias", None), down=head.down)
    # A subclass with a forward of its own may compute anything.
    if isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward:
        return LinearHead(head.weight, head.bias)
    return None


def _lora_head(head: Any) -> LinearHead | None:
    base = linear_head(head.get_base_layer())
    if base is None or base.down is not None:
        return None
    names = [name for name in head.active_adapters if name in head.lora_A]
    if head.disable_adapters or head.merged or not names:
        return base
    name = names[0]
    down = head.lora_A[name]
    up = head.lora_B[name]
    dropout = head.lora_dropout[name]
    is_variant = name in getattr(head, "lora_variant", {})
    drops = not isinstance(dropout, nn.Identity) and getattr(dropout, "p", 1.0) > 0
    if len(names) > 1 or is_variant or drops or up.bias is not None or down.bias is not None:
        return None
    return base._replace(lora=(down.weight.view_as(down.weight), up.weight * head.scaling[name]))
