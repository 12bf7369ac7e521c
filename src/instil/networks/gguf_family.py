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
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
"""Norms of queries and keys."""
GEMMA3_PARTS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
"""Parts of Gemma 3 that differ from those of other families."""
PHI3_PARTS = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
"""Parts of Phi-3 that are one matrix instead of several in other families."""
SPLIT_PARTS = ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")
"""Parts of other families that Phi-3 does not have."""
GPT2_PARTS = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "ffn_norm": "ln_2",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
"""All parts of GPT-2."""
GPT2_LINEAR = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
"""Linear layers of GPT-2, whose weights transformers stores as (in, out)."""


@dataclass(frozen=True)
class Family:
    """Form of the models of one family.

    Args:
        model_type: name in GGUF files.
        classes: classes of transformers that compute the same from the same weights.
        parts: names of the parts in llama.cpp, each with its name in transformers.
        biased: parts with a bias, in llama.cpp.
        config_type: name of the configuration in transformers, if it differs.
        layers: start of the names of the weights of a layer in transformers.
        activation: activation of the feed-forward layers in transformers.
        rotates_neighbours: whether llama.cpp rotates two adjacent rows of queries and keys
            together, instead of row ``i`` and row ``i + head_dim / 2``.
        heads_fill_width: whether llama.cpp requires ``num_heads * head_dim`` to be the width.
        learns_positions: whether positions have embeddings instead of rotations; norms are layer
            norms then.
        transposed: parts whose weights transformers stores as (in, out).
        has_shifted_norms: whether transformers stores the scales of norms minus one.
        window_period: distance of the layers that attend to the whole text; the others attend to a
            window. 0 if there are no windows.
        rotary_types: types of rotary embeddings that both transformers and llama.cpp have; with
            windows, those of the layers that attend to the whole text.
        has_fused_parts: whether queries, keys and values are one matrix, and so are the two inputs
            of the feed-forward layer.
    """

    model_type: str
    classes: tuple[str, ...]
    parts: Mapping[str, str] = field(default_factory=lambda: PARTS)
    biased: tuple[str, ...] = ()
    config_type: str = ""
    layers: str = "model.layers."
    activation: str = "silu"
    rotates_neighbours: bool = False
    heads_fill_width: bool = False
    learns_positions: bool = False
    transposed: tuple[str, ...] = ()
    has_shifted_norms: bool = False
    window_period: int = 0
    rotary_types: tuple[str, ...] = ("default", "linear", "yarn")
    has_fused_parts: bool = False

    def name_in_transformers(self, name: str) -> str | None:
        """Name of a tensor in transformers; None for one that the family does not have."""
        path, _, kind = name.rpartition(".")
        prefix = ""
        if path.startswith("blk."):
            _, block, path = path.split(".", 2)
            prefix = f"{self.layers}{block}."
        if not self._has(path, kind):
            return None
        return f"{prefix}{self.parts[path]}.{kind}"

    def name_in_gguf(self, name: str) -> str | None:
        """Name of a weight in GGUF; None for one that the family does not have."""
        path, _, kind = name.rpartition(".")
        prefix = ""
        if path.startswith(self.layers):
            block, path = path.removeprefix(self.layers).split(".", 1)
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
        Family(
            "llama",
            ("LlamaForCausalLM", "MistralForCausalLM"),
            rotates_neighbours=True,
            rotary_types=("default", "linear", "yarn", "llama3"),
        ),
        Family(
            "qwen2",
            ("Qwen2ForCausalLM",),
            biased=("attn_q", "attn_k", "attn_v"),
            heads_fill_width=True,
        ),
        Family("qwen3", ("Qwen3ForCausalLM",), PARTS | HEAD_NORMS),
        Family(
            "phi3",
            ("Phi3ForCausalLM",),
            {name: PARTS[name] for name in PARTS if name not in SPLIT_PARTS} | PHI3_PARTS,
            heads_fill_width=True,
            has_fused_parts=True,
            rotary_types=("default",),
        ),
        Family(
            "gemma3",
            ("Gemma3ForCausalLM",),
            PARTS | HEAD_NORMS | GEMMA3_PARTS,
            config_type="gemma3_text",
            activation="gelu_pytorch_tanh",
            has_shifted_norms=True,
            window_period=6,
            rotary_types=("default", "linear"),
        ),
        Family(
            "gpt2",
            ("GPT2LMHeadModel",),
            GPT2_PARTS,
            biased=(*GPT2_LINEAR, "attn_norm", "ffn_norm", "output_norm"),
            layers="transformer.h.",
            activation="gelu_new",
            heads_fill_width=True,
            learns_positions=True,
            transposed=GPT2_LINEAR,
            rotary_types=("default",),
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
