"""Sharding over all processes and in groups, and checkpoints for another number of processes."""

from pathlib import Path

import pytest
import torch

from instil.engine import Engine
from instil.engine.sharding import shard
from instil.plan.memory.sharded_units import shard_bytes
from instil.recipe import RecipeError
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.settings import Training
from tests.engine import folder_on_ranks
from tests.engine.sharded_on_ranks import texts, trained
from tests.experiment.small import recipe
from tests.test_parity import on_ranks, on_two_ranks


@pytest.mark.slow
def test_groups_and_another_number_of_processes(tmp_path: Path) -> None:
    two = on_ranks(2, "tests.engine.sharded_on_ranks", tmp_path / "two.pt")
    four = on_ranks(4, "tests.engine.sharded_on_ranks", tmp_path / "four.pt")
    whole, _ = trained()
    on_one, _ = trained(load=tmp_path / "checkpoint.pt")
    for weights in (two["weights"], four["weights"], on_one):
        torch.testing.assert_close(weights, whole, atol=2e-5, rtol=0)
    for name in ("continued", "continued_on_all"):
        torch.testing.assert_close(four[name], whole, atol=2e-5, rtol=0)
    scheme = Offline(texts(8, 0), Frozen(texts(16, 1)), {})
    expected = sum(shard_bytes(parameter, 2) for parameter in scheme.parameters())
    # Two groups of two processes keep as much per process as two processes.
    assert two["local"] == four["local"] == expected


@pytest.mark.slow
def test_no_process_has_all_weights_of_a_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 21}
    for name, width, depth in (("student", 16, 2), ("teacher", 256, 24)):
        torch.manual_seed(depth)
        config = transformers.LlamaConfig(
            hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth, **sizes
        )
        model = transformers.LlamaForCausalLM(config)
        model.save_pretrained(tmp_path / name)
    num_bytes = sum(parameter.nbytes for parameter in model.parameters())
    two = on_two_ranks("tests.engine.folder_on_ranks", tmp_path / "two.pt", str(tmp_path))
    one, _ = folder_on_ranks.trained(tmp_path, shard=False)
    torch.testing.assert_close(two["weights"], one, atol=1e-5, rtol=0)
    # Half of the weights are kept. All of them, and then the shards, would be 1.5 times as many.
    assert 0.5 * num_bytes < two["peak"] < num_bytes


def test_wrong_groups() -> None:
    with pytest.raises(RecipeError, match=r"train: shard_group needs shard: true"):
        recipe("train.shard_group=2")
    with pytest.raises(ValueError, match=r"shard_group: Expected a number of processes above 1"):
        Training(epochs=1, shard_group=2)
    # Without further processes nothing is sharded, whatever the groups are.
    assert Engine("cpu", shard=True, shard_group=2).shard is False
    with pytest.raises(ValueError, match=r"train.shard_group: .* a divisor of 1, .* got 2"):
        shard(Offline(texts(8, 0), None, {}), torch.device("cpu"), group=2)
