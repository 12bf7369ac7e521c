"""Damaged and forged stores: one clear error or a repair, and no access outside the store."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from safetensors.torch import save, save_file

from instil.files.checksums import json_with_checksum
from instil.store.files import StoredFile, fetch_unpacked, write_tensors
from instil.store.reader import Store, row_checksums
from instil.store.writer import StoreWriter
from instil.teachers.recorded import Recorded
from tests.store.test_store import INDEX, answer, batch_of, batches, recorded

SHARD = "train-00001-0000000000.safetensors.zst"
CONSTANTS, TRAIN_INDEX = "train-constants.safetensors.zst", "train-index.safetensors.zst"
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stores"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of a valid store."""
    folder = tmp_path_factory.mktemp("store") / "s"
    recorded(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def copied(original: dict[str, bytes], folder: Path, change: Change | None = None) -> Path:
    """Return a copy with a changed manifest and a valid checksum, like that of a forger."""
    folder.mkdir()
    for name, content in original.items():
        (folder / name).write_bytes(content)
    if change is not None:
        entries = json.loads(original["manifest.json"])
        entries.pop("sha256")
        replaced = change(entries)
        entries = entries if replaced is None else replaced
        text = json_with_checksum(entries) if isinstance(entries, dict) else json.dumps(entries)
        (folder / "manifest.json").write_text(text)
    return folder


def read(folder: Path) -> None:
    """Read all data that a run reads."""
    store = Store(str(folder))
    store.check({"teacher": "a"})
    batch = batch_of([8, 3, 3], [2, 0, 1])
    got = Recorded(store, row_checksums)(batch)
    assert torch.equal(got["logits"], answer(batch)["logits"])


def test_a_copy_is_as_good(original: dict[str, bytes], tmp_path: Path) -> None:
    read(copied(original, tmp_path / "s", lambda entries: None))


def _set(value: Any, *path: str) -> Change:
    def change(entries: dict[str, Any]) -> None:
        for key in path[:-1]:
            entries = entries[key]
        entries[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: [], "no checksum"),
        (_set(1, "unknown"), r"unknown: Extra inputs are not permitted"),
        (lambda entries: entries.pop("sections") and None, "no section 'train'"),
        (lambda entries: entries.pop("files") and None, "does not list train-index"),
        (lambda entries: entries.pop("binding") and None, "binding: Field required"),
        (_set("/etc/passwd", "files", SHARD, "sha256"), r"files\.train-00001.*sha256: String"),
        (_set("a" * 63 + "\n", "files", SHARD, "sha256"), r"sha256: String should match"),
        (_set(2**70, "files", SHARD, "size"), r"size: "),
        (_set({"sha256": "a" * 64, "size": 3}, "files", "../x"), r"files\.\.\./x"),
        (_set({"sha256": "a" * 64, "size": 3}, "files", "/x"), r"files\./x"),
        (_set("../index", "sections", "train", "index"), r"sections\.train\.index: String"),
        (_set(0, "sections", "train", "rows"), r"sections\.train\.rows: "),
        (_set("7", "sections", "train", "count"), r"sections\.train\.count: "),
        (_set({"logits": 3}, "sections", "train", "outputs"), "'logits' is not a description"),
        (_set({"signal": "Net"}, "sections", "train", "outputs", "logits"), "'logits' is no"),
        (_set({"rows": "absent"}, "sections", "train", "outputs", "logits"), "'absent' does not"),
        (_set({"constant": "absent"}, "sections", "train", "outputs", "x"), "there is no 'absent'"),
        (_set(8, "sections", "train", "count"), "there are no 8 sample indices"),
        (_set([], "teacher"), "teacher: Input should be"),
        (_set("anything", "teacher", "test"), r"teacher\.test: "),
        (_set(1, "format"), "Expected 2, got 1"),
    ],
)
def test_a_forged_manifest_is_one_clear_error(
    original: dict[str, bytes], tmp_path: Path, change: Change, message: str
) -> None:
    folder = copied(original, tmp_path / "s", change)
    with pytest.raises(ValueError, match=message) as caught:
        read(folder)
    assert str(folder) in str(caught.value)
    assert "instil record" in str(caught.value)


def test_answers_outside_the_store_are_not_read(original: dict[str, bytes], tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    save_file({"logits": torch.zeros(7, 4)}, f"{forged}.safetensors")
    folder = copied(original, tmp_path / "s", _set(str(forged), "files", SHARD, "sha256"))
    with pytest.raises(ValueError, match="sha256: String should match pattern"):
        read(folder)
    folder = copied(original, tmp_path / "linked")
    (folder / SHARD).rename(tmp_path / "elsewhere")
    (folder / SHARD).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link out of the store"):
        read(folder)


def test_decompression_stops_at_the_size_of_the_manifest(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zst"
    bomb.write_bytes(zstandard.ZstdCompressor().compress(bytes(2**26)))
    with pytest.raises(ValueError, match="unpacks to more than the 1000 bytes of the manifest"):
        fetch_unpacked(str(bomb), StoredFile(sha256="0" * 64, size=1000))
    claims = zstandard.ZstdCompressor().compressobj(size=2**40)
    start = claims.compress(b"x" * 10) + claims.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    bomb.write_bytes(start)
    with pytest.raises(ValueError, match="is damaged"):
        fetch_unpacked(str(bomb), StoredFile(sha256="0" * 64, size=1000))
    window = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    large = zstandard.ZstdCompressor(compression_params=window).compressobj()
    bomb.write_bytes(large.compress(b"x" * 10) + large.flush())
    with pytest.raises(ValueError, match="is damaged"):
        fetch_unpacked(str(bomb), StoredFile(sha256="0" * 64, size=1000))


def test_an_unpacked_file_that_was_damaged_is_unpacked_again(tmp_path: Path, cache: Path) -> None:
    recorded(tmp_path / "s")
    read(tmp_path / "s")
    unpacked = sorted(cache.iterdir())
    assert len(unpacked) == 5, "an index, constants and three shards"
    for file in unpacked:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        for damaged in (bytes(content), content[:50], b""):
            file.write_bytes(damaged)
            read(tmp_path / "s")
            assert len(file.read_bytes()) == len(content)


@pytest.mark.parametrize("file", [TRAIN_INDEX, CONSTANTS, SHARD])
@pytest.mark.parametrize("damage", ["lost", "empty", "flipped", "not in the manifest"])
def test_recording_again_makes_a_damaged_file_anew(
    tmp_path: Path, file: str, damage: str, original: dict[str, bytes]
) -> None:
    folder = copied(original, tmp_path / "s", lambda entries: None)
    content = bytearray(original[file])
    content[len(content) // 2] ^= 1
    if damage == "lost":
        (folder / file).unlink()
    elif damage == "not in the manifest":
        copied(original, tmp_path / "other", lambda entries: entries["files"].pop(file) and None)
        (folder / "manifest.json").write_bytes((tmp_path / "other/manifest.json").read_bytes())
    else:
        (folder / file).write_bytes(b"" if damage == "empty" else bytes(content))
    with pytest.raises((ValueError, FileNotFoundError), match=f"{file}.* (instil record RECIPE)?"):
        read(folder)
    calls: list[int] = []

    def counted(batch: Any) -> Any:
        calls.append(len(batch["index"]))
        return answer(batch)

    again = StoreWriter(folder, {"teacher": "a"})
    list(again.record("train", INDEX, 3, batches, counted))
    again.finish({})
    assert sum(calls) <= len(INDEX), "intact shards are not computed again"
    read(folder)


def test_tensors_that_do_not_fit_their_manifest_are_told(tmp_path: Path) -> None:
    store = recorded(tmp_path / "s")
    entries = store.manifest.model_dump(mode="json")
    tensors = dict(store._tensors(SHARD))
    forged = {
        "fewer rows": {name: tensor[:3] for name, tensor in tensors.items()},
        "no checksum": {name: tensor for name, tensor in tensors.items() if name != "checksum"},
        "another checksum": tensors | {"checksum": tensors["checksum"].float()},
        "another shape": tensors | {"logits": torch.zeros(7, 9)},
    }
    for content in forged.values():
        stored = write_tensors(tmp_path / "s" / SHARD, content)
        entries["files"][SHARD] = stored.model_dump()
        (tmp_path / "s" / "manifest.json").write_text(json_with_checksum(entries))
        with pytest.raises(ValueError, match=f"{SHARD} does not match its manifest: "):
            read(tmp_path / "s")
    data = zstandard.ZstdCompressor().compress(b"no tensors")
    assert data != save({})
    (tmp_path / "s" / SHARD).write_bytes(data)
    import hashlib

    digest = hashlib.sha256(b"no tensors").hexdigest()
    entries["files"][SHARD] = {"sha256": digest, "size": 10}
    (tmp_path / "s" / "manifest.json").write_text(json_with_checksum(entries))
    with pytest.raises(ValueError, match=f"{SHARD} has no tensors"):
        read(tmp_path / "s")


VALUES = [None, True, -1, 0, 2**63, 1.5, "", "../x", "\x1b[2J", "\ud800", [], {}, [[]], {"a": 1}]


def mutated(value: Any, source: random.Random) -> Any:
    """Return the value with one part replaced, removed or added."""
    if isinstance(value, (dict, list)) and value and source.random() < 0.8:
        key = source.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if source.random() < 0.2:
            del value[key]
        else:
            value[key] = mutated(value[key], source)
        return value
    if isinstance(value, dict) and source.random() < 0.3:
        return value | {source.choice(["x", "../x", "sha256", ""]): source.choice(VALUES)}
    return copy.deepcopy(source.choice(VALUES))


def test_no_mutation_of_a_manifest_ends_in_an_unclear_error(
    original: dict[str, bytes], tmp_path: Path
) -> None:
    source, messages = random.Random(0), list[str]()
    folder = copied(original, tmp_path / "s")
    for _ in range(400):
        entries = json.loads(original["manifest.json"])
        entries.pop("sha256")
        entries = mutated(entries, source)
        try:
            text = json_with_checksum(entries) if isinstance(entries, dict) else json.dumps(entries)
            (folder / "manifest.json").write_text(text)
        except UnicodeEncodeError:
            continue  # a lone surrogate is no text of a file
        try:
            read(folder)
        except (ValueError, FileNotFoundError) as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(str(folder) in message for message in messages)


def test_every_flipped_bit_of_a_manifest_is_noticed(
    original: dict[str, bytes], tmp_path: Path
) -> None:
    folder, content = copied(original, tmp_path / "s"), original["manifest.json"]
    expected, messages = Store(str(folder)).manifest, list[str]()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 7
        (folder / "manifest.json").write_bytes(damaged)
        try:
            assert Store(str(folder)).manifest == expected, "only the layout has changed"
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all("manifest.json" in message for message in messages)
