import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from instil.core import Net
from instil.export import student
from instil.export.student import load_student, read_description, save_student


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 6), nn.Linear(6, 6)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(6)
        table = torch.randn(4, 4)
        self.register_buffer(
            "left", table[:, :2]
        )  # overlap in one memory without being the same tensor
        self.register_buffer("turned", table.t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embed(x)))


def test_round_trip_keeps_every_tensor_the_ties_and_the_description(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, other = Net(Tied(), taps={"features": "norm"}), Net(Tied())
    description = {
        "model": "networks:mlp",
        "classes": ["a", 'b"</script>'],
        "options": {"width": 3},
    }
    path = save_student(source, tmp_path / "student.safetensors", description)
    assert load_student(other, path) == description == read_description(path)
    for name, value in source.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value), name
    assert other.model.head.weight is other.model.embed.weight
    assert "head.weight" not in load_file(path), "a tied weight is written once"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode, (
        "readable by whom other new files are"
    )
    (tmp_path / "plain").unlink()
    assert [file.name for file in tmp_path.iterdir()] == ["student.safetensors"]


def test_a_compiled_model_is_written_under_the_authors_names(tmp_path: Path) -> None:
    plain = nn.Linear(3, 2)
    path = save_student(Net(torch.compile(plain)), tmp_path / "s.safetensors")
    assert set(load_file(path)) == {"weight", "bias"}
    fresh = nn.Linear(3, 2)
    load_student(torch.compile(fresh), path)
    assert torch.equal(fresh.weight, plain.weight)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(3, 4), r"wrong shape of 'weight'. Expected \(4, 3\) as in Linear, got \(2, 3\)"),
        (nn.Linear(3, 2, bias=False), "unknown tensor 'bias'. Expected the tensors of Linear"),
        (nn.BatchNorm1d(2), "missing tensor 'running_mean' of BatchNorm1d"),
    ],
)
def test_weights_of_another_model_are_refused(
    tmp_path: Path, model: nn.Module, message: str
) -> None:
    path = save_student(nn.Linear(3, 2), tmp_path / "s.safetensors")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_student(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("content", [None, b"not a safetensors file at all"])
def test_missing_and_broken_files_are_one_clear_error(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "s.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"s\.safetensors is not a readable safetensors file"):
        load_student(nn.Linear(3, 2), path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = save_student(nn.Linear(3, 2), tmp_path / "s.safetensors")
    before = path.read_bytes()

    def full(tensors: object, filename: Path, metadata: object) -> None:
        Path(filename).write_bytes(b"half")
        raise error

    monkeypatch.setattr(student, "save_file", full)
    with pytest.raises(
        OSError,
        match=(
            r"the disk is full: .*s\.safetensors could not be written; the older file is "
            r"unchanged"
        ),
    ) as caught:
        save_student(nn.Linear(3, 2), path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_pass_unchanged_and_leave_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(tensors: object, filename: Path, metadata: object) -> None:
        Path(filename).write_bytes(b"half")
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(student, "save_file", denied)
    with pytest.raises(PermissionError, match="denied"):
        save_student(nn.Linear(3, 2), tmp_path / "s.safetensors")
    assert not list(tmp_path.iterdir())
