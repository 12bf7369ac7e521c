"""Logits of all classes of ``AutoModelForCausalLM`` that can be built small."""

from __future__ import annotations

import pytest
import torch

from instil.tasks.bases.causal_model import call
from tests.tasks.bases.causal_families import NOT_BUILT, NOT_CAUSAL, tiny_model

transformers = pytest.importorskip("transformers")
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5]])
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
QUICK = (
    *("llama", "gpt2", "qwen3", "gemma2", "mixtral", "mamba", "opt", "bert", "falcon_h1", "xlm"),
    *("granitemoehybrid", "deepseek_v3", "bloom", "t5gemma", "phi3", "cohere2", "olmo2"),
)
OWN_LOGITS = {
    *("bert", "big_bird", "camembert", "data2vec-text", "electra", "ernie"),
    *("megatron-bert", "modernbert-decoder", "prophetnet", "rembert", "roberta"),
    *("roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}
"""Families whose logits are more than a matrix product, a scale and a soft cap."""


def names() -> list[object]:
    """Return all families of the installed version; most are marked slow."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    cases: list[object] = []
    for name in sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(NOT_BUILT) - set(NOT_CAUSAL)):
        cases.append(name if name in QUICK else pytest.param(name, marks=pytest.mark.slow))
    return cases


@pytest.mark.filterwarnings("ignore")  # each family warns of its own matters
@pytest.mark.parametrize("name", names())
def test_logits_equal_those_of_the_model(name: str) -> None:
    model = tiny_model(name)
    with torch.no_grad():
        own, outputs = model(**BATCH)["logits"], call(model, BATCH)
    torch.testing.assert_close(outputs["logits"], own)
    assert ("projection" in outputs) == (name not in OWN_LOGITS)
    assert outputs["prediction"].shape == IDS.shape


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_families_that_read_later_tokens_raise(name: str) -> None:
    with pytest.raises(ValueError, match="the logits of a position depend on later tokens"):
        call(tiny_model(name), BATCH)
