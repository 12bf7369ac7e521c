"""Folders of tiny random vision-language models with their processors, images and conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.networks.sources.folders import tokenizer

PLACEHOLDERS = {
    "llava": "<image>",
    "idefics3": "<image>",
    "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>",
}
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}PLACEHOLDER{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
"""Chat template that reads contents as parts."""
TOKENS = {
    "llava": ["<image>"],
    "idefics3": ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"],
    "qwen2_vl": ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"],
}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
VISION = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
}


def _llava(own: Any, transformers: Any, template: str) -> tuple[Any, Any]:
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    processor = transformers.LlavaProcessor(
        image_processor=images,
        tokenizer=own,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    config = transformers.LlavaConfig(
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(own)},
        vision_config=VISION | {"model_type": "clip_vision_model", "patch_size": 8},
        image_token_id=own.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    return processor, config


def _idefics3(own: Any, transformers: Any, template: str) -> tuple[Any, Any]:
    images = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 16}, max_image_size={"longest_edge": 16}, do_image_splitting=False
    )
    processor = transformers.Idefics3Processor(
        image_processor=images, tokenizer=own, image_seq_len=4, chat_template=template
    )
    config = transformers.Idefics3Config(
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(own)},
        vision_config=VISION | {"patch_size": 4},
        image_token_id=own.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    return processor, config


def _qwen2_vl(own: Any, transformers: Any, template: str) -> tuple[Any, Any]:
    sizes = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    limits = {"size": {"shortest_edge": 64, "longest_edge": 256}}
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**sizes, **limits),
        tokenizer=own,
        video_processor=transformers.Qwen2VLVideoProcessor(**sizes, **limits),
        chat_template=template,
    )
    vision = {"depth": 1, "embed_dim": 8, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2}
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = transformers.Qwen2VLConfig(
        text_config=TEXT | {"vocab_size": len(own), "rope_parameters": rotary},
        vision_config=vision | {"patch_size": 4, "spatial_merge_size": 2},
        image_token_id=own.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=own.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=own.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=own.convert_tokens_to_ids("<|vision_end|>"),
    )
    return processor, config


BUILDERS = {"llava": _llava, "idefics3": _idefics3, "qwen2_vl": _qwen2_vl}


def write_vision_model(folder: Path, name: str) -> tuple[Any, Any]:
    """Write a random vision-language model and its processor, and return both.

    Args:
        folder: folder to write.
        name: ``llava``, ``idefics3`` or ``qwen2_vl``.
    """
    transformers = pytest.importorskip("transformers")
    own = tokenizer()
    own.add_special_tokens({"additional_special_tokens": TOKENS[name]})
    template = TEMPLATE.replace("PLACEHOLDER", PLACEHOLDERS[name])
    processor, config = BUILDERS[name](own, transformers, template)
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config).eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def write_images(folder: Path, size: int) -> list[str]:
    """Write images of one colour, of different sizes, and return their names."""
    folder.mkdir(exist_ok=True)
    names = []
    for index in range(size):
        pixels = np.full((16 + 4 * (index % 3), 20, 3), 40 * index % 256, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        names.append(f"{folder.name}/{index}.png")
    return names


def question(names: list[str], text: str, answer: str) -> dict[str, Any]:
    """Row with a question about some images."""
    images = [{"type": "image", "image": name} for name in names]
    return {
        "messages": [
            {"role": "user", "content": [*images, {"type": "text", "text": text}]},
            {"role": "assistant", "content": answer},
        ]
    }


def write_image_chat(folder: Path, size: int = 24) -> None:
    """Write ``chat.jsonl``, questions about one image each, and the images."""
    names = write_images(folder / "images", size)
    rows = [question([name], "Which shade?", str(i)) for i, name in enumerate(names)]
    (folder / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
