"""Metrics of lm-evaluation-harness equal those of the model's own likelihoods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.integrations.lm_eval_harness import lm_eval_metrics
from tests.networks.sources.folders import write_model

TASK = """task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def write_sums(folder: Path, size: int = 8) -> list[dict[str, Any]]:
    """Write the task ``sums`` with two answers for each question, and return its rows."""
    rows = []
    for i in range(size):
        choices = [str(i + 1), str(i + 2)]
        rows.append({"question": f"{i}+1=", "choices": choices, "answer": 0})
    folder.mkdir()
    file = folder.resolve() / "sums.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    (folder / "sums.yaml").write_text(TASK.replace("FILE", str(file)))
    return rows


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder: .* has no model\. Expected .*instil export"):
        lm_eval_metrics(tmp_path, ["sums"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the package, in any of its versions
def test_a_task_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    model = write_model(tmp_path / "run" / "student", "llama", max_position_embeddings=64)
    tasks = tmp_path / "tasks"
    rows = write_sums(tasks)
    metrics = lm_eval_metrics(
        tmp_path / "run", ["sums"], tasks, device="cpu", bootstrap_iters=0, limit=6
    )
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    correct = 0
    for row in rows[:6]:
        scores = []
        for choice in row["choices"]:
            prompt, text = (
                tokenizer(part, add_special_tokens=False)["input_ids"]
                for part in (row["question"], choice)
            )
            ids = torch.tensor([prompt + text])
            with torch.no_grad():
                log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            chosen = log_probs.gather(1, ids[0, 1:, None])[len(prompt) - 1 :]
            scores.append(float(chosen.sum()))
        correct += scores[0] > scores[1]
    assert metrics == {"sums/acc": pytest.approx(correct / 6)}
    with pytest.raises(ValueError, match=r"tasks: .* has no task 'sum'\. Did you mean sums"):
        lm_eval_metrics(tmp_path / "run", ["sum"], tasks)
