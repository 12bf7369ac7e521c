"""Low-rank adapters beside frozen weights (Hu et al., ICLR 2022), by the library peft."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Lt
from torch import nn


def lora(
    model: nn.Module,
    rank: Annotated[int, Ge(1)] = 8,
    alpha: Annotated[int, Ge(1)] = 16,
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
    modules: list[str] | None = None,
) -> nn.Module:
    """W + (``alpha`` / ``rank``) B A with W as it is: only A and B are trained.

    ``modules``: the last names of the linear layers that are adapted (null: all but the head). Raises ValueError for names that no layer has, and
    without the package ``peft``.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError('lora needs the package peft: pip install "instil[text]"') from error
    asked: Any = model
    head = asked.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linear = [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and part is not head
    ]
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=modules or linear
    )
    adapted: nn.Module = get_peft_model(asked, config)
    return adapted
