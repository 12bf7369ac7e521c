import copy
import pickle

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from instil.networks.cnn import cnn
from instil.networks.weights import load_weights


def nets():
    torch.manual_seed(0)
    trained = cnn(4, width=2)
    trained(torch.rand(4, 1, 8, 8))
    return trained, cnn(4, width=2)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items()
    )


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
def test_files(tmp_path, name):
    trained, fresh = nets()
    assert not same(trained, fresh)
    save = save_file if name.endswith("safetensors") else torch.save
    save(trained.state_dict(), tmp_path / name)
    load_weights(fresh, name, tmp_path)
    assert same(trained, fresh)


@pytest.mark.parametrize("key", ["state_dict", "model"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_checkpoints_with_wrappers(tmp_path, key, prefix):
    trained, fresh = nets()
    torch.save(
        {key: {prefix + name: value for name, value in trained.state_dict().items()}, "epoch": 3},
        tmp_path / "w.pt",
    )
    load_weights(fresh, tmp_path / "w.pt")
    assert same(trained, fresh)


def test_old_checkpoints_without_batch_counts(tmp_path):
    trained, fresh = nets()
    torch.save(
        {name: value for name, value in trained.state_dict().items() if "num_batches" not in name},
        tmp_path / "w.pt",
    )
    load_weights(fresh, tmp_path / "w.pt")
    assert torch.equal(fresh.head.weight, trained.head.weight)


def test_one_name_of_tied_weights_is_enough(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

    trained, fresh = Tied(), Tied()
    save_model(trained, str(tmp_path / "w.safetensors"))
    load_weights(fresh, tmp_path / "w.safetensors")
    assert same(trained, fresh)


def test_differences_are_counted_and_listed(tmp_path):
    trained, fresh = nets()
    state = trained.state_dict()
    state["haed.weight"] = state.pop("head.weight")
    state["head.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "w.pt")
    before = copy.deepcopy(fresh)
    expected = (
        r"does not fit CNN: 1 missing \(head\.weight\), 1 unexpected \(haed\.weight\), "
        r"1 of another shape \(head\.bias \(7,\) for \(4,\)\)"
        r"\. Missing 'head\.weight': Did you mean haed\.weight"
    )
    with pytest.raises(ValueError, match=expected):
        load_weights(fresh, tmp_path / "w.pt")
    assert same(before, fresh)


class Danger:
    def __reduce__(self):
        return print, ("code was run",)


def test_code_in_a_file_is_not_executed(tmp_path, capsys):
    torch.save({"w": Danger()}, tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=r"w\.pt cannot be read as plain weights: .* code in it is not run"
    ):
        load_weights(nets()[1], tmp_path / "w.pt")
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.bin", b"", "weights are .safetensors, .pt or .pth files, not w.bin"),
        ("w.pt", b"nonsense", "cannot be read as plain weights"),
        ("w.pt", b"", "cannot be read as plain weights"),
        ("w.safetensors", b"nonsense", "cannot be read as safetensors"),
    ],
)
def test_other_files_raise(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_weights(nets()[1], name, tmp_path)


@pytest.mark.parametrize(
    ("content", "what"), [({"epoch": 3}, "the keys epoch"), ([1], "a list"), ({}, "the keys")]
)
def test_checkpoints_without_weights_raise(tmp_path, content, what):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=f"holds no weights by name.*but {what}"):
        load_weights(nets()[1], tmp_path / "w.pt")


def test_a_missing_file_raises_with_the_closest_name(tmp_path):
    (tmp_path / "student.pt").write_bytes(pickle.dumps(1))
    with pytest.raises(
        ValueError, match=r"no such weights file: .*studnet\.pt\. Did you mean student\.pt"
    ):
        load_weights(nets()[1], "studnet.pt", tmp_path)


def test_every_damaged_file_raises_a_clear_error(tmp_path):
    """PyTorch's own message recommends to run the code in the file."""
    messages = []
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "good.pt")
    content = (tmp_path / "good.pt").read_bytes()
    for position in range(0, len(content), 9):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        for data in (bytes(damaged), content[:position]):
            (tmp_path / "w.pt").write_bytes(data)
            try:
                load_weights(nn.Linear(3, 2), "w.pt", tmp_path)
            except ValueError as error:
                messages.append(str(error))
    assert len(messages) > 150
    assert all("w.pt" in message and "weights_only" not in message for message in messages)
