"""Students of ``smollm2.py`` as drafts of their teacher (speculative decoding) in llama.cpp.

python benchmarks/gguf_draft.py --work FOLDER [--settings FILE] [--arms depth/kd] [--prompts 16]
[--draft-tokens 4] [--json FILE]

``FOLDER`` is the work folder of ``smollm2.py``, and ``--settings`` its result. Teacher and students
are written as GGUF files with 16-bit weights. The server continues the first 64 tokens of test
rows by 64 tokens with the most likely ones, on one thread. ``used`` is the share of the proposed
tokens that became text: counted by the server, and by ``instil.generation.speculative_decoding``
with the networks in this process. ``speedup`` is the ratio to the speed without a draft, measured
after one another for each prompt.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import gguf_speed
import numpy as np
import smollm2
import torch
from torch import Tensor

import instil
from instil.files.json_files import write_json
from instil.generation.speculative_decoding import draft_acceptance

RESULT = Path(__file__).with_name("gguf_draft.json")
NUM_TOKENS = gguf_speed.NUM_TOKENS
"""Number of tokens of a prompt, and of its continuation."""


def counted_here(
    draft: torch.nn.Module, teacher: torch.nn.Module, prompts: Tensor, num_draft_tokens: int
) -> dict[str, Any]:
    """Return the acceptance of a draft by the networks in this process.

    Args:
        draft: the student.
        teacher: the teacher.
        prompts: tokens (N, T) of the prompts, with the first token of their continuation.
        num_draft_tokens: number of tokens that the draft proposes at a time.
    """
    ids = torch.nn.functional.pad(prompts, (0, NUM_TOKENS))
    valid = torch.zeros_like(ids, dtype=torch.bool)
    valid[:, prompts.shape[1] - 1 : -1] = True
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "valid": valid}
    acceptance = draft_acceptance(
        draft,
        teacher,
        batch | {"index": torch.arange(len(ids))},
        max_new_tokens=NUM_TOKENS - 1,
        num_draft_tokens=num_draft_tokens,
        greedy=True,
    )
    return {
        "used": acceptance.used,
        "tokens_per_pass": acceptance.sampled_tokens,
        "accepted": acceptance.sampled,
    }


def counted_by_server(
    files: dict[str, Path], arm: str, prompts: Tensor, num_draft_tokens: int
) -> tuple[dict[str, Any], Tensor]:
    """Return the server's counts and the speedup, and the first token of each continuation."""
    used = proposed = 0
    ratios, first_tokens = [], []
    with (
        gguf_speed.serving(files["teacher"]) as plain,
        gguf_speed.serving(files["teacher"], files[arm], num_draft_tokens) as with_draft,
    ):
        for prompt in prompts.tolist():
            slow, fast = (gguf_speed.complete(one, prompt) for one in (plain, with_draft))
            used += fast["timings"]["draft_n_accepted"]
            proposed += fast["timings"]["draft_n"]
            ratios.append(gguf_speed.speed(fast) / gguf_speed.speed(slow))
            first_tokens.append(fast["tokens"][0])
    # The first token of a text is computed with the prompt, without a draft.
    num_tokens = len(prompts) * (NUM_TOKENS - 1)
    row = {"used": used / proposed, "tokens_per_pass": num_tokens / (num_tokens - used)}
    return row | {"speedup": float(np.median(ratios))}, torch.tensor(first_tokens)


def main() -> None:
    """Measure the students of the command line, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of smollm2.py")
    parser.add_argument("--settings", type=Path, default=smollm2.RESULT)
    parser.add_argument("--arms", nargs="+", default=["depth/kd"])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--draft-tokens", type=int, default=4)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    measured = json.loads(options.settings.read_text(encoding="utf-8"))
    settings = argparse.Namespace(**{key: measured[key] for key in smollm2.SETTINGS})
    experiment, teacher = smollm2.load_teacher(settings, options.work)
    rows = experiment.splits.test.__getitems__(range(options.prompts))
    prompts = rows["input_ids"][:, :NUM_TOKENS]
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = gguf_speed.write_models(measured, options.arms, options.work, Path(folder))
        for arm in options.arms:
            rate = measured["arms"][arm]["rate"]
            draft = instil.load(smollm2.folder_of(arm, rate, options.work)).net
            server, first = counted_by_server(files, arm, prompts, options.draft_tokens)
            started = torch.cat([prompts, first[:, None]], 1)
            here = counted_here(draft, teacher, started, options.draft_tokens)
            facts = {"rows": measured["rows"], "steps": measured["steps"]}
            table[arm] = {**facts, "llama.cpp": server, "instil": here}
    shared = {"prompts": options.prompts, "draft_tokens": options.draft_tokens}
    write_json(options.json, shared | {"tokens": NUM_TOKENS, "drafts": table})


if __name__ == "__main__":
    main()
