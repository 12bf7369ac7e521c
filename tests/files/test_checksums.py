"""Stored checksums: one flipped bit anywhere in a file is an error that names it."""

from __future__ import annotations

import random
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from instil.export.student import load_student, save_student
from instil.files.atomic import atomic, remove_temporary_files
from instil.files.checksums import (
    DamagedFileError,
    append_checksum,
    check_appended,
    check_sha256,
    file_sha256,
    json_with_checksum,
    read_json_with_checksum,
)


def flipped(path: Path, bit: int) -> bytes:
    """Flip one bit of a file; returns the content before."""
    content = path.read_bytes()
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    return content


def student_file(folder: Path) -> tuple[Path, Callable[[Path], object]]:
    path = save_student(nn.Linear(5, 3), folder / "s.safetensors", {"classes": ["a", "b"]})
    return path, lambda file: load_student(nn.Linear(5, 3), file)


def checkpoint_file(folder: Path) -> tuple[Path, Callable[[Path], object]]:
    path = folder / "c.pt"
    torch.save({"weight": torch.randn(5, 3), "step": 3}, path)
    append_checksum(path)
    return path, lambda file: check_appended(file, "Delete it")


def json_file(folder: Path) -> tuple[Path, Callable[[Path], object]]:
    path = folder / "a.json"
    path.write_text(json_with_checksum({"test": {"accuracy": 0.75}, "é": [1, None]}), "utf-8")
    return path, lambda file: read_json_with_checksum(file, "Delete it")


def named_file(folder: Path) -> tuple[Path, Callable[[Path], object]]:
    path = folder / "x.bin"
    path.write_bytes(bytes(range(64)))
    digest = file_sha256(path)
    return path, lambda file: check_sha256(file, digest, "Delete it")


KINDS = [student_file, checkpoint_file, json_file, named_file]


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_passes(
    kind: Callable[[Path], tuple[Path, Callable[[Path], object]]], tmp_path: Path
) -> None:
    path, read = kind(tmp_path)
    read(path)
    bits = range(8 * path.stat().st_size)
    differs = 0
    for bit in random.Random(0).sample(bits, min(len(bits), 600)):
        content = flipped(path, bit)
        try:
            read(path)
        except ValueError as error:
            differs += path.name in str(error)
        path.write_bytes(content)
    assert differs == min(len(bits), 600)
    read(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 1, 7, 8, 60])
def test_a_cut_file_is_named(
    kind: Callable[[Path], tuple[Path, Callable[[Path], object]]], length: int, tmp_path: Path
) -> None:
    path, read = kind(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedFileError, match=path.name):
        read(path)


def test_pytorch_opens_a_file_with_an_appended_checksum(tmp_path: Path) -> None:
    path, _ = checkpoint_file(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.load(path, weights_only=True)["step"] == 3


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    """The order of metadata was random: 9 keys in 8 files never agree by chance."""
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    about = {name: [name] for name in "hgfedcb"}
    files = [save_student(net, tmp_path / f"{i}.safetensors", about) for i in range(8)]
    assert len({file.read_bytes() for file in files}) == 1


def test_two_writers_have_two_temporary_files_and_no_link_is_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    target = tmp_path / "a.txt"
    target.symlink_to(victim)
    with atomic(target) as first, atomic(target) as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert victim.read_text() == "precious"
    assert not target.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) & 0o400


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.json") as temporary:
        left = tmp_path / temporary.name
        temporary.write_text("half")
        copy = left.read_text()
    left.write_text(copy)
    (tmp_path / ".hidden").write_text("mine")
    remove_temporary_files(tmp_path, older_than=3600)
    assert left.exists()
    remove_temporary_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.json"]
