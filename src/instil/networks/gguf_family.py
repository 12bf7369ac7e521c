"""Families of language models in GGUF files, and their names of weights in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PARTS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Names of the parts of a model in llama.cpp, each with its name in transformers."""
LAYERS = "model.layers."
"""Start of the names of the weights of a layer in transformers."""


@dataclass(frozen=True)
class Family:
    """Form of the models of one family.

    Args:
        model_type: name in GGUF files, and of the configuration in transformers.
        classes: classes of transformers that compute the same from the same weights.
        more_parts: names of parts that other families do not have.
        biased: parts with a bias, in llama.cpp.
        rotates_neighbours: whether llama.cpp rotates two adjacent rows of queries and keys
            together, instead of row ``i`` and row ``i + head_dim / 2``.
        heads_fill_width: whether llama.cpp requires ``num_heads * head_dim`` to be the width.
    """

    model_type: str
    classes: tuple[str, ...]
    more_parts: Mapping[str, str] = field(default_factory=dict)
    biased: tuple[str, ...] = ()
    rotates_neighbours: bool = False
    heads_fill_width: bool = False

    @property
    def parts(self) -> dict[str, str]:
        """Names of the parts in llama.cpp, each with its name in transformers."""
        return PARTS | dict(self.more_parts)

    def name_in_transformers(self, name: str) -> str | None:
        """Name of a tensor in transformers; None for one that the family does not have."""
        path, _, kind = name.rpartition(".")
        prefix = ""
        if path.startswith("blk."):
            _, block, path = path.split(".", 2)
            prefix = f"{LAYERS}{block}."
        if not self._has(path, kind):
            return None
        return f"{prefix}{self.parts[path]}.{kind}"

    def name_in_gguf(self, name: str) -> str | None:
        """Name of a weight in GGUF; None for one that the family does not have."""
        path, _, kind = name.rpartition(".")
        prefix = ""
        if path.startswith(LAYERS):
            block, path = path.removeprefix(LAYERS).split(".", 1)
            prefix = f"blk.{block}."
        short = {long: short for short, long in self.parts.items()}.get(path, "")
        if not self._has(short, kind):
            return None
        return f"{prefix}{short}.{kind}"

    def _has(self, part: str, kind: str) -> bool:
        """Whether the family has a weight or bias of a part, in the names of llama.cpp."""
        is_bias = kind == "bias" and part in self.biased
        return part in self.parts and (kind == "weight" or is_bias)


FAMILIES = {
    family.model_type: family
    for family in (
        Family("llama", ("LlamaForCausalLM", "MistralForCausalLM"), rotates_neighbours=True),
        Family(
            "qwen2",
            ("Qwen2ForCausalLM",),
            biased=("attn_q", "attn_k", "attn_v"),
            heads_fill_width=True,
        ),
        Family(
            "qwen3",
            ("Qwen3ForCausalLM",),
            {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"},
        ),
    )
}
"""Supported families by their name in GGUF files."""


def family_of(model: Any) -> Family:
    """Return the family of a model of transformers.

    Raises:
        ValueError: for a model of another family.
    """
    name = model.__class__.__name__
    classes: list[str] = []
    for family in FAMILIES.values():
        if name in family.classes:
            return family
        classes += family.classes
    raise ValueError(f"gguf: unsupported model. Expected one of {', '.join(classes)}; got {name}")
