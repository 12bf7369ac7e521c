"""Conversations and a small tokenizer with a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data.small_tokenizer import folder_of

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Template without marks, whose beginnings are those of the whole."""


def tokenizer_folder(path: Path, template: str | None = CHATML) -> str:
    """Write a tokenizer whose turns end with ``<|im_end|>``, and return its folder."""
    config: dict[str, Any] = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    if template is not None:
        config["chat_template"] = template
    return str(folder_of(path, SPECIAL, tokenizer_config=config))


def turns(*texts: str, system: str = "") -> list[dict[str, str]]:
    """Messages of user and assistant in turn."""
    first = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return first + [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]


def conversations(count: int) -> list[dict[str, Any]]:
    """Conversations of two answers and different lengths."""
    rows = []
    for index in range(count):
        answer = "the lazy dog " * (index % 5 + 1)
        messages = turns(f"quick {index}?", answer, "and the fox?", f"It jumps over {index}.")
        rows.append({"messages": messages})
    return rows


def write_jsonl(path: Path, rows: list[Any]) -> str:
    """Write rows to a JSON Lines file and return its name."""
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)
