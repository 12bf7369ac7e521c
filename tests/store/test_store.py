"""A store returns outputs bit for bit, by sample and view, and only for the recorded input."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Outputs
from instil.roles import Projection, Sampled, Top
from instil.store import codecs, writer
from instil.store.codecs import encode_outputs, encoded_roles
from instil.store.reader import Store, row_checksums
from instil.store.writer import StoreWriter
from instil.teachers.recorded import Recorded

INDEX = torch.tensor([3, 0, 9, 4, 7, 1, 8])
HEAD = torch.randn(6, 5)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


def image(index: Tensor, view: Tensor) -> Tensor:
    return index[:, None].float() * 1.5 + view[:, None] * 0.25 + torch.arange(4)


def batches(view: int, start: int, end: int) -> Iterator[Batch]:
    for index in INDEX[start:end].split(2):
        views = torch.full_like(index, view)
        yield {"image": image(index, views), "index": index, "view": views}


def answer(batch: Batch) -> Outputs:
    image = batch["image"]
    features = (image[:, :2, None], image.sum(1, keepdim=True))
    return {
        "logits": image.sin(),
        "features": features,
        "projection": Projection(image.cos(), HEAD, scale=0.5),
    }


def recorded(folder: Path, binding: dict[str, object] | None = None) -> Store:
    under_way = StoreWriter(folder, binding or {"teacher": "a"})
    list(under_way.record("train", INDEX, 3, batches, answer))
    under_way.finish({"test": {"accuracy": 0.5}})
    return Store(str(folder))


def batch_of(index: list[int], view: list[int]) -> Batch:
    rows, views = torch.tensor(index), torch.tensor(view)
    return {"image": image(rows, views), "index": rows, "view": views}


def test_answers_come_back_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 100)  # several shards
    store = recorded(tmp_path / "s")
    assert len(list((tmp_path / "s").glob("train-0000*"))) > 3
    batch = batch_of([8, 3, 3, 0], [2, 0, 1, 2])
    got, expected = Recorded(store, row_checksums)(batch), answer(batch)
    assert torch.equal(got["logits"], expected["logits"])
    assert all(
        torch.equal(a, b) for a, b in zip(got["features"], expected["features"], strict=True)
    )
    assert torch.equal(got["projection"].hidden, expected["projection"].hidden)
    assert torch.equal(got["projection"].weight, HEAD)
    assert (got["projection"].scale, got["projection"].bias) == (0.5, None)
    assert Store(str(tmp_path / "s")).manifest.teacher.test == {"accuracy": 0.5}


def test_another_input_than_the_one_answered_is_refused(tmp_path: Path) -> None:
    teacher = Recorded(recorded(tmp_path / "s"), row_checksums)
    batch = batch_of([8, 3], [2, 0])
    batch["image"][1, 2] = torch.nextafter(batch["image"][1, 2], torch.tensor(9.0))
    with pytest.raises(ValueError, match="the input of sample 3 is not the recorded one"):
        teacher(batch)
    with pytest.raises(
        ValueError, match="the input of sample 8"
    ):  # the right sample in the wrong view
        teacher(batch_of([8, 3], [2, 0]) | {"view": torch.tensor([1, 0])})


def test_missing_samples_views_and_roles_are_errors(tmp_path: Path) -> None:
    teacher = Recorded(recorded(tmp_path / "s"), row_checksums)
    with pytest.raises(ValueError, match="sample 2 is not in the store"):
        teacher(batch_of([2], [0]))
    with pytest.raises(ValueError, match="sample 77 is not in the store"):
        teacher(batch_of([77], [0]))
    with pytest.raises(ValueError, match=r"view 3 is not in the store .* which has 3"):
        teacher(batch_of([3], [3]))
    with pytest.raises(
        ValueError,
        match=r"'embedding' was not recorded\. Expected one of features, logits, projection",
    ):
        teacher.select_roles(["logits", "embedding"], {})
    with pytest.raises(ValueError, match="cannot be differentiated"):
        teacher(batch_of([3], [0]), grad=True)
    with pytest.raises(ValueError, match="no 'view'"):
        teacher({"image": torch.zeros(1, 4), "index": torch.zeros(1, dtype=torch.int64)})
    with pytest.raises(FileNotFoundError, match="is not a store"):
        Store(str(tmp_path))


def test_a_store_of_something_else_is_refused(tmp_path: Path) -> None:
    store = recorded(tmp_path / "s", {"teacher": "a", "data": {"crop": 1}})
    store.check({"teacher": "a", "data": {"crop": 1}})
    with pytest.raises(
        ValueError, match=r"does not match this recipe: data\.crop was 1 and is 2\. Record it again"
    ):
        store.check({"teacher": "a", "data": {"crop": 2}})
    with pytest.raises(
        ValueError, match='has outputs of another recording: teacher was "a" and is "b"'
    ):
        StoreWriter(tmp_path / "s", {"teacher": "b", "data": {"crop": 1}})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="not empty and not a store"):
        StoreWriter(tmp_path / "other", {})


def test_a_recording_that_was_killed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 100)
    whole = recorded(tmp_path / "whole")
    seen: list[int] = []

    def noting(batch: Batch) -> Outputs:
        seen.extend(batch["index"].tolist())
        if len(seen) > 12:
            raise KeyboardInterrupt
        return answer(batch)

    under_way = StoreWriter(tmp_path / "s", {"teacher": "a"})
    with pytest.raises(KeyboardInterrupt):
        list(under_way.record("train", INDEX, 3, batches, noting))
    with pytest.raises(ValueError, match="is not complete"):
        Store(str(tmp_path / "s"))
    done = set(under_way.manifest.files)
    (tmp_path / "s" / "train-00000-0000000000.safetensors.zst").unlink()  # and a file was lost
    recorded_again: list[int] = []
    again = StoreWriter(tmp_path / "s", {"teacher": "a"})
    list(
        again.record(
            "train",
            INDEX,
            3,
            batches,
            lambda batch: recorded_again.extend(batch["index"].tolist()) or answer(batch),
        )
    )  # type: ignore[func-returns-value]
    again.finish({})
    assert len(recorded_again) < 3 * len(INDEX), "existing shards are not computed again"
    assert done <= set(again.manifest.files)
    assert again.manifest.files == whole.manifest.files, "as if it had never been stopped"


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    store = recorded(tmp_path / "s")
    file = tmp_path / "s" / "train-00001-0000000000.safetensors.zst"
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"train-00001-0000000000.safetensors.zst is damaged"):
        store.read("train", torch.tensor([3]), torch.tensor([1]))
    file.unlink()
    with pytest.raises(FileNotFoundError, match="the store lacks"):
        store.read("train", torch.tensor([3]), torch.tensor([1]))


def test_read_over_the_network_and_in_other_processes(tmp_path: Path) -> None:
    import fsspec

    recorded(tmp_path / "s")
    memory = fsspec.filesystem("memory")
    for file in (tmp_path / "s").iterdir():
        memory.pipe(f"/answers/{file.name}", file.read_bytes())
    shutil.rmtree(tmp_path / "s")
    store = Store("memory://answers")
    batch = batch_of([8, 3], [2, 0])
    assert torch.equal(Recorded(store, row_checksums)(batch)["logits"], answer(batch)["logits"])
    with multiprocessing.get_context("spawn").Pool(2) as pool:  # what was unpacked is shared
        for logits in pool.map(_logits, [store, store]):
            assert torch.equal(torch.tensor(logits), answer(batch)["logits"])
    memory.rm("/answers", recursive=True)


def _logits(store: Store) -> list[list[float]]:
    values: list[list[float]] = store.read("train", torch.tensor([8, 3]), torch.tensor([2, 0]))[0][
        "logits"
    ].tolist()
    return values


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_checksums_know_rows_alone(dtype: torch.dtype) -> None:
    values = (torch.rand(50, 3, 7) * 200).to(dtype)
    whole = row_checksums(values)
    assert torch.equal(whole[10:20], row_checksums(values[10:20])), (
        "the batch around a row changes nothing"
    )
    assert torch.equal(whole, row_checksums(values.transpose(1, 2).contiguous().transpose(1, 2)))
    other = values.clone()
    other[5] = other[5].flip(1)
    assert (row_checksums(other) != whole).nonzero().flatten().tolist() in ([5], [])
    if dtype != torch.bool:
        assert len(whole.unique()) == 50


def test_top_and_sampled_are_made_of_the_teachers_distribution() -> None:
    torch.manual_seed(0)
    logits = torch.randn(400, 3, 12) * 3
    batch = {"index": torch.arange(400), "view": torch.zeros(400, dtype=torch.int64)}
    p = logits.double().softmax(-1)
    top: Top = encode_outputs({"logits": logits}, batch, "top", 4)["top"]
    largest, order = p.sort(-1, descending=True)
    assert torch.equal(top.indices.long(), order[..., :4])
    assert torch.allclose(top.values.double(), largest[..., :4].log(), atol=1e-5)
    assert torch.allclose(top.log_tail.double(), largest[..., 4:].sum(-1).log(), atol=1e-5)
    sampled: Sampled = encode_outputs({"logits": logits}, batch, "sampled", 500)["sampled"]
    assert torch.allclose(sampled.log_p.double(), p.log().gather(-1, sampled.ids.long()), atol=1e-5)
    share = torch.zeros_like(p).scatter_add_(
        -1, sampled.ids.long(), torch.full_like(sampled.log_p.double(), 1 / 500)
    )
    assert (share - p).abs().max() < 0.13  # 5 sigma of the worst of 14,400 shares
    assert (share - p).mean(0).abs().max() < 0.01, "unbiased"
    again: Sampled = encode_outputs({"logits": logits}, batch, "sampled", 500)["sampled"]
    assert torch.equal(again.ids, sampled.ids)
    half = encode_outputs({"logits": logits, "features": (logits, logits.long())}, batch, "float16")
    assert half["logits"].dtype == half["features"][0].dtype == torch.float16
    assert half["features"][1].dtype == torch.int64


def test_codecs_that_cannot_be() -> None:
    batch = {"index": torch.arange(2), "view": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(
        ValueError,
        match=r"the codec 'top' needs logits\. Expected logits or projection, got embedding",
    ):
        encode_outputs({"embedding": torch.rand(2, 3)}, batch, "top")
    with pytest.raises(ValueError, match="the 64 largest of 10 classes are all of them"):
        encode_outputs({"logits": torch.rand(2, 10)}, batch, "top")
    with pytest.raises(ValueError, match=r"no numbers beyond 65504\..*got 100000"):
        encode_outputs({"members": ({"logits": torch.tensor([[1e5, 2.0]])},)}, batch, "float16")
    # A masked class stays one.
    masked = encode_outputs({"logits": torch.tensor([[-torch.inf, 2.0]])}, batch, "float16")
    assert masked["logits"].isinf().tolist() == [[True, False]]


def test_the_heads_of_members_are_recorded_once(tmp_path: Path) -> None:
    def members(batch: Batch) -> Outputs:
        logits = batch["image"].sin()
        return {"members": ({"logits": logits, "head": (HEAD, torch.ones(6))}, {"logits": -logits})}

    under_way = StoreWriter(tmp_path / "s", {})
    list(under_way.record("train", INDEX, 3, batches, members))
    under_way.finish({})
    batch = batch_of([8, 3], [2, 0])
    outputs = Recorded(Store(str(tmp_path / "s")), row_checksums)(batch)["members"]
    assert torch.equal(outputs[0]["head"][0], HEAD)
    assert torch.equal(outputs[1]["logits"], members(batch)["members"][1]["logits"])


def test_a_section_that_lacks_a_role_is_recorded_again(tmp_path: Path) -> None:
    def record(*roles: str) -> set[str]:
        under_way = StoreWriter(tmp_path / "s", {})

        def predict(batch: Batch) -> Outputs:
            outputs = answer(batch)
            return {role: outputs[role] for role in roles}

        list(under_way.record("train", INDEX, 3, batches, predict, roles=roles))
        under_way.finish({})
        return Store(str(tmp_path / "s")).roles("train")

    assert record("logits") == {"logits"}
    assert record("logits", "features") == {"logits", "features"}
    # Further roles are no reason to record again.
    assert record("features") == {"logits", "features"}


def test_hidden_states_and_a_head_are_kept_as_their_logits_would_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(codecs, "MAX_LOGITS", 7 * 12)  # not a whole number of rows
    torch.manual_seed(0)
    batch = {"index": torch.arange(5), "view": torch.zeros(5, dtype=torch.int64)}
    signal = Projection(
        torch.randn(5, 3, 4),
        torch.randn(12, 4),
        torch.randn(12),
        0.5,
        3.0,
        (torch.randn(2, 4), torch.randn(12, 2)),
    )
    outputs = {"projection": signal, "features": torch.rand(5, 2)}
    for codec in ("top", "sampled"):
        small, whole = (
            encode_outputs(source, batch, codec, 4)
            for source in (outputs, {"logits": signal.logits()})
        )
        assert set(small) == encoded_roles(outputs, codec) == {codec, "features"}
        for field in dataclasses.fields(small[codec]):
            value, expected = (getattr(one[codec], field.name) for one in (small, whole))
            assert value is expected is None or torch.allclose(value, expected, atol=1e-5)
    halved = encode_outputs(outputs, batch, "float16")["projection"]
    assert (halved.hidden.dtype, halved.weight.dtype) == (torch.float16, torch.float32)


def test_a_tensor_in_two_roles_is_kept_once(tmp_path: Path) -> None:
    weight = torch.randn(6, 4)

    def tied(batch: Batch) -> Outputs:
        hidden = batch["image"].cos()
        return {
            "projection": Projection(hidden, weight),
            "embedding": hidden,
            "head": (weight.view_as(weight), HEAD),
            "token_embedding": weight,
        }

    under_way = StoreWriter(tmp_path / "s", {})
    list(under_way.record("train", INDEX, 3, batches, tied))
    under_way.finish({})
    store, batch = Store(str(tmp_path / "s")), batch_of([8, 3], [2, 0])
    got = Recorded(store, row_checksums)(batch)
    assert torch.equal(got["embedding"], batch["image"].cos())
    for tensor in (got["projection"].weight, got["head"][0], got["token_embedding"]):
        assert torch.equal(tensor, weight)
    assert torch.equal(got["head"][1], HEAD)
    section = store.manifest.sections["train"]
    assert set(store._tensors(section.constants or "")) == {"projection.weight", "head.1"}
    assert set(store._tensors(section.shard("train", 2, 0))) == {"projection.hidden", "checksum"}
