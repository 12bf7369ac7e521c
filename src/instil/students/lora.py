"""LoRA: trainable low-rank adapters on frozen weights (Hu et al., ICLR 2022), with ``peft``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Lt
from torch import nn
from typing_extensions import Doc

from instil.cards import suggestion
from instil.students.layers import is_linear, is_transposed, output_head


def lora(
    model: nn.Module,
    rank: Annotated[int, Ge(1), Doc("rank of the adapters")] = 8,
    alpha: Annotated[int, Ge(1), Doc("scale of the adapters, which is alpha / rank")] = 16,
    dropout: Annotated[float, Ge(0), Lt(1), Doc("dropout on the input of the adapters")] = 0.0,
    modules: Annotated[
        list[str] | None,
        Doc("last names of the adapted linear layers. None: all but the head"),
    ] = None,
) -> nn.Module:
    """Add adapters: W + (``alpha`` / ``rank``) B A. W is frozen; A and B are trained.

    Raises:
        ValueError: for names that no layer has, and without the package ``peft``.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError('lora needs the package peft: pip install "instil[text]"') from error
    language_model: Any = model
    head = output_head(model)
    # The head is left out: it may share its weight with the embedding.
    linear_layers = [
        name for name, part in model.named_modules() if is_linear(part) and part is not head
    ]
    _check_names(modules or (), linear_layers)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=modules or linear_layers,
        fan_in_fan_out=any(is_transposed(part) for part in model.modules()),
    )
    adapted: nn.Module = get_peft_model(language_model, config)
    return adapted


def _check_names(modules: Iterable[str], linear_layers: Sequence[str]) -> None:
    """Check that each name is the end of the path of a layer; peft would ignore some of them."""
    last_names = dict.fromkeys(path.rpartition(".")[2] for path in linear_layers)
    for name in modules:
        if not any(f".{path}".endswith(f".{name}") for path in linear_layers):
            raise ValueError(
                f"modules: no linear layer has the name '{name}'.{suggestion(name, last_names)}"
            )
