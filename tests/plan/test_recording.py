"""Recorded teacher outputs: equal training, and a clear error for another teacher or other data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from torch import Tensor

from instil.data.sources.digits import digits
from instil.experiment.scheme_checks import check_changed_inputs
from instil.plan.doctor import doctor
from instil.plan.recording import record_outputs
from instil.recipe import build
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe
from instil.store import files, writer
from instil.store.reader import Store
from instil.teachers.frozen import Frozen
from tests.cli.test_cli import called
from tests.experiment.small import SMALL, among_texts, lines, numbers, recipe, run_of
from tests.networks.sources.folders import language_recipe, write_chat, write_model

VIEWS = (
    *(
        "data.augment.crop=1",
        "data.augment.flip=true",
        "data.augment.views=2",
        "train.epochs=3",
        "seeds=[0]",
    ),
    "teacher_train={epochs: 2, optimizer: {lr: 1e-2}, accumulate: 1}",
)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Record the outputs of the small recipe's teacher, in two views."""
    folder = tmp_path_factory.mktemp("answers") / "store"
    assert record_outputs(stored(folder, *VIEWS), Console(quiet=True)) == folder
    return str(folder)


def stored(folder: str | Path, *changes: str, **sections: Any) -> Recipe:
    return recipe(f"store.path={folder}", *changes, **sections)


def observed_batches(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Collect the sample indices of every batch that a live teacher sees."""
    batches: list[Tensor] = []
    forward = Frozen.forward

    def observing(self: Frozen, batch: Any, grad: bool = False) -> Any:
        batches.append(batch["index"])
        return forward(self, batch, grad)

    monkeypatch.setattr(Frozen, "forward", observing)
    return batches


def test_losses_and_scores_are_those_of_the_live_teacher_to_the_last_bit(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = run_of(recipe(*VIEWS), tmp_path / "live")
    batches = observed_batches(monkeypatch)
    recorded = run_of(stored(store, *VIEWS), tmp_path / "recorded")
    assert batches == []
    assert numbers(recorded) == numbers(live)

    def losses(out: Path) -> list[Any]:
        return [
            (line["arm"], line["step"], line["losses"])
            for line in lines(out)
            if line["arm"] != "teacher"
        ]

    assert losses(tmp_path / "recorded") == losses(tmp_path / "live")
    assert {arm for arm, _, _ in losses(tmp_path / "live")} == {
        "alone",
        "label_smoothing",
        "pseudo_labels",
        "distilled",
    }
    assert recorded["cost"]["teacher"]["parameters"] == live["cost"]["teacher"]["parameters"]


def losses_of(out: Path) -> list[Any]:
    return [line["losses"] for line in lines(out) if line["arm"] == "distilled"]


def test_precision_reaches_the_recorded_and_the_plain_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    among_texts(tmp_path, monkeypatch)
    sections: dict[str, Any] = {
        "task": "language",
        "data": {"name": "text", "path": "texts", "length": 16, "rows": 16, "held_out": 4}
        | {"batch_size": 4},
        "teacher": {"model": "causal_transformer", "options": {"width": 32, "depth": 2}},
        "student": {"model": "causal_transformer", "options": {"width": 16, "depth": 1}},
        "objectives": {"forward_kl": {}},
        "train": {"epochs": 1, "precision": "bfloat16"},
        "teacher_train": {"epochs": 2, "optimizer": {"lr": 1e-2}},
        "seeds": [0],
        "baselines": [],
    }
    live = run_of(recipe(**sections), tmp_path / "live")
    record_outputs(recipe("store.path=store", **sections), Console(quiet=True))
    recorded = run_of(recipe("store.path=store", **sections), tmp_path / "recorded")
    run_of(recipe("teacher.precompute=true", **sections), tmp_path / "plain")
    assert losses_of(tmp_path / "recorded") == losses_of(tmp_path / "live")
    assert losses_of(tmp_path / "plain") == losses_of(tmp_path / "live")
    assert recorded["teacher"] == live["teacher"]
    in_full = run_of(recipe("train.precision=float32", **sections), tmp_path / "float32")
    assert losses_of(tmp_path / "float32") != losses_of(tmp_path / "live")
    assert in_full["teacher"] != live["teacher"], (
        "the teacher is evaluated in the precision of its outputs"
    )
    with pytest.raises(RecipeError, match='precision was "bfloat16" and is "float32"'):
        run_of(recipe("store.path=store", "train.precision=float32", **sections), tmp_path / "no")


def test_the_teacher_of_images_is_scored_in_bfloat16(tmp_path: Path) -> None:
    changes = ("train.precision=bfloat16", "train.epochs=1", "seeds=[0]", "teacher.precompute=true")
    scores = run_of(recipe(*changes), tmp_path / "run")["teacher"]
    assert 0 < scores["accuracy"]["mean"] <= 1


def test_micro_batches_and_workers_do_not_change_the_training(store: str, tmp_path: Path) -> None:
    whole = run_of(stored(store, *VIEWS, "baselines=[]"), tmp_path / "whole")
    cut = run_of(
        stored(store, *VIEWS, "baselines=[]", "train.accumulate=2", "data.workers=1"),
        tmp_path / "cut",
    )
    assert cut["distilled"]["accuracy"]["mean"] == pytest.approx(
        whole["distilled"]["accuracy"]["mean"], abs=0.01
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("data.augment.crop=2",), "augmentation.crop was 1 and is 2"),
        (("data.augment.views=3",), "augmentation.views was 2 and is 3"),
        (
            ("teacher.options.width=3",),
            "teacher.options.width was 2 and is 3; weights.0 .* has changed",
        ),
        (
            ("teacher_train.epochs=4",),
            r"^store.path: .*weights.0 \(the teacher's weights, or its training\) has changed\. "
            r"Record",
        ),
        (("store.codec=float16",), "store.codec was"),
        (("data.name=digit_domains",), "data.name was .* and is .*digit_domains"),
    ],
)
def test_a_store_of_another_teacher_or_other_data_is_refused_with_the_difference(
    store: str, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        doctor_of(stored(store, *VIEWS, *changes))


def test_a_store_of_another_version_of_the_outputs_is_refused(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instil.experiment.stored_teacher.OUTPUTS_VERSION", -1)
    message = "store.path: .*: another version of instil, which computes other outputs, made"
    with pytest.raises(ValueError, match=message):
        doctor_of(stored(store, *VIEWS))


@pytest.mark.parametrize("key", ["teacher.is_trained=true", "teacher.freeze=[stages.0]"])
def test_a_store_is_bound_to_the_weights_of_a_file_and_to_their_training(
    key: str, tmp_path: Path
) -> None:
    changes = ("seeds=[0]", "baselines=[]", "train.epochs=1", key)
    run_of(recipe(*changes[:-1]), tmp_path / "first")
    weights = tmp_path / "student.safetensors"
    weights.write_bytes((tmp_path / "first" / "student.safetensors").read_bytes())
    student = recipe().student
    teacher = {"model": student.model, "options": student.options, "weights": str(weights)}
    one = stored(tmp_path / "store", *changes, teacher=teacher)
    record_outputs(one, Console(quiet=True))
    doctor_of(one)
    if "freeze" in key:
        one = stored(tmp_path / "store", *changes, "teacher_train.epochs=2", teacher=teacher)
    else:
        run_of(recipe(*changes[:-1], "train.optimizer.lr=0.1"), tmp_path / "other")
        weights.write_bytes((tmp_path / "other" / "student.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"weights\.0 .* has changed"):
        doctor_of(one)


def doctor_of(one: Recipe) -> dict[str, Any]:
    findings = doctor(one)
    if findings["problems"]:
        raise ValueError("\n".join(findings["problems"]))
    return findings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("data.augment.mixup=true", "objectives.cross_entropy=null"),
            "store: recorded outputs belong to .* Leave data.augment.mixup out",
        ),
        (
            ("objectives.fitnet={}", "student={model: cnn, options: {width: 2}}"),
            r"objectives\.fitnet: FitNet needs features of the teacher, which outputs logits; "
            r"the store does not hold it: record again with this",
        ),
        (
            ("scheme=adaad",),
            "store: .* the scheme adaad changes the inputs of the teacher",
        ),
    ],
)
def test_recorded_outputs_that_do_not_suffice_are_refused_before_training(
    store: str, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        doctor_of(stored(store, *VIEWS, *changes))


def test_the_doctor_reads_a_store(store: str) -> None:
    (stage,) = doctor_of(stored(store, *VIEWS))["stages"]
    assert stage["objectives"]["student/kd"]["value"] > 0


def test_a_recording_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 10_000)
    one = stored(tmp_path / "store", "baselines=[]")
    write, left = files.write_tensors, [4]

    def stopping(path: Path, tensors: dict[str, Tensor]) -> str:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return write(path, tensors)

    monkeypatch.setattr(files, "write_tensors", stopping)
    with pytest.raises(KeyboardInterrupt):
        record_outputs(one, Console(quiet=True))
    with pytest.raises(
        ValueError,
        match=r"is not complete: its recording was stopped\. Continue it with the same command",
    ):
        doctor_of(one)
    there = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("train-0*")}
    assert there
    monkeypatch.setattr(files, "write_tensors", write)
    record_outputs(one, Console(quiet=True))
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("train-0*")}
    assert len(now) > len(there)
    assert all(now[name] == moment for name, moment in there.items())
    doctor_of(one)


def test_new_views_in_every_epoch_cannot_be_recorded(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"data\.augment\.views: new views in every epoch cannot be recorded\. Expected",
    ):
        record_outputs(stored(tmp_path / "store", "data.augment.crop=1"), Console(quiet=True))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "s3://bucket/answers",
            r"store\.path: teacher outputs can only be recorded in a local folder\. "
            r".* got s3://bucket/answers",
        ),
        ("notes.txt", "store.path: .*notes.txt is a file. Set another folder"),
        ("thesis", "store.path: .*thesis is not empty and not a store. Set another folder"),
        (
            "notes.txt/store",
            "store.path: notes.txt/store cannot be written: Not a directory. Set another folder",
        ),
    ],
)
def test_outputs_are_recorded_in_an_empty_local_folder(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (tmp_path / "notes.txt", tmp_path / "thesis" / "one.tex"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RecipeError, match=message):
        record_outputs(stored(path, "baselines=[]"), Console(quiet=True))
    assert sorted(tmp_path.rglob("*")) == before


def test_no_store_is_left_if_the_outputs_cannot_be_encoded(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"store.size: the 64 largest of 10 classes are all of them"
    ):
        record_outputs(
            stored(tmp_path / "store", "baselines=[]", "store.codec=top", objectives={"top_k": {}}),
            Console(quiet=True),
        )
    assert not (tmp_path / "store").exists()


def test_a_codec_without_all_logits_names_the_codecs_and_losses_that_fit(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"store\.codec: objectives\.kd reads all logits of the teacher, and 'sampled' "
        r"records some classes only\. Expected exact or float16\. Set store\.codec: exact, or use "
        r"the objective sampled_kd$",
    ):
        record_outputs(
            stored(tmp_path / "store", "store.codec=sampled", "store.size=3"), Console(quiet=True)
        )
    assert not (tmp_path / "store").exists()


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL | {"seeds": [0], "baselines": []}))
    code, _, err = called(capsys, "record", str(tmp_path / "small.yaml"))
    assert (code, err) == (
        2,
        "Error: store: missing. Expected the folder for the teacher's outputs. "
        "Set it, such as store.path=outputs\n",
    )
    code, out, _ = called(
        capsys, "record", str(tmp_path / "small.yaml"), f"store.path={tmp_path / 'store'}"
    )
    assert code == 0
    assert f"instil run ... store.path={tmp_path / 'store'}" in out
    code, _, err = called(
        capsys,
        "run",
        str(tmp_path / "small.yaml"),
        f"store.path={tmp_path / 'none'}",
        "--out",
        str(tmp_path / "run"),
    )
    assert code == 2
    assert err.startswith(
        f"Error: store.path: {tmp_path / 'none'} is not a store: it has no manifest.json. "
        "Create one: instil record RECIPE"
    )
    assert not (tmp_path / "run").exists()
    code, _, err = called(
        capsys,
        "run",
        str(tmp_path / "small.yaml"),
        f"store.path={tmp_path / 'store'}",
        "--out",
        str(tmp_path / "run"),
    )
    assert code == 0, err
    assert (
        json.loads((tmp_path / "run" / "result.json").read_text())["distilled"]["agreement"]["mean"]
        > 0.1
    )


def test_a_damaged_file_is_refused(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    manifest = json.loads((Path(store) / "manifest.json").read_text())
    name = next(name for name in manifest["files"] if name.startswith("train-00000"))
    damaged = tmp_path / "store"
    damaged.mkdir()
    for path in Path(store).iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    content = bytearray((damaged / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (damaged / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        doctor_of(stored(damaged, *VIEWS))


def test_a_causal_language_model_is_recorded_as_hidden_states_and_head(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "src/instil/recipes/language/language.yaml"
    small = yaml.safe_load(path.read_text()) | {"seeds": [0], "baselines": [], "export": False}
    small["train"] = {"epochs": 1, "optimizer": {"lr": 5e-3}}
    small["data"] |= {"rows": 64, "held_out": 32}
    small["objectives"] = {"forward_kl": {}}
    one = stored(tmp_path / "store", **small)
    record_outputs(one, Console(quiet=True))
    sections = json.loads((tmp_path / "store" / "manifest.json").read_text())["sections"]
    assert set(sections["train"]["outputs"]) == {"projection"}
    recorded = run_of(one, tmp_path / "recorded")
    live = run_of(recipe(**small), tmp_path / "live")
    assert recorded["distilled"] == live["distilled"]
    assert torch.isfinite(torch.tensor(recorded["distilled"]["loss"]["mean"]))


@pytest.mark.parametrize(
    ("codec", "losses"),
    [("exact", {"forward_kl": {}, "cross_entropy": {}}), ("top", {"top_k": {}})],
)
def test_outputs_of_answers_only_are_recorded(
    codec: str, losses: dict[str, Any], tmp_path: Path
) -> None:
    write_model(tmp_path / "teacher", "llama")
    write_chat(tmp_path / "chat.jsonl")
    student = {"model": "causal_transformer", "options": {"width": 8, "depth": 1}}
    student["options"]["vocabulary"] = 259
    teacher = {"model": "transformers:AutoModelForCausalLM", "options": {"path": "teacher"}}
    sections = {"student": student, "teacher": teacher | {"is_trained": True}}
    content = language_recipe(**sections, objectives=losses, baselines=[], folder=str(tmp_path))
    live = run_of(build(content), tmp_path / "live")
    store = {"path": str(tmp_path / "store"), "codec": codec, "size": 8}
    one = build(content | {"store": store})
    record_outputs(one, Console(quiet=True))
    recorded = run_of(one, tmp_path / "recorded")
    if codec == "exact":
        assert recorded["distilled"] == live["distilled"]
    section = Store(str(tmp_path / "store")).manifest.sections["train"]
    name = {"exact": "projection.hidden", "top": "top.values"}[codec]
    assert name in section.counted
    shard = files.fetch_unpacked(
        f"{tmp_path}/store/{section.shard('train', 0, 0)}",
        Store(str(tmp_path / "store")).manifest.files[section.shard("train", 0, 0)],
    )
    tensors = files.map_tensors(shard, "shard")
    learned = int(tensors["counted"].sum())
    assert len(tensors[name]) == learned
    # Answers have one or two digits and an end.
    assert 2 * section.count <= learned <= 3 * section.count


def test_heads_of_other_sizes_learn_the_same_from_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    among_texts(tmp_path, monkeypatch)
    network: dict[str, Any] = {"model": "causal_transformer"}
    sections: dict[str, Any] = {
        "task": "language",
        "data": {"name": "text", "path": "texts", "length": 16, "rows": 8, "held_out": 4}
        | {"batch_size": 4, "tokenizer": "bytes"},
        "teacher": network | {"options": {"width": 8, "depth": 1, "vocabulary": 269}},
        "student": network | {"options": {"width": 4, "depth": 1, "vocabulary": 263}},
        "seeds": [0],
        "baselines": [],
    }

    def perplexity(*changes: str, loss: str) -> float:
        one = recipe(*changes, **sections, objectives={loss: {}})
        if one.store is not None:
            record_outputs(one, Console(quiet=True))
        folder = tmp_path / f"{loss}{len(list(tmp_path.iterdir()))}"
        return float(run_of(one, folder)["distilled"]["perplexity"]["mean"])

    live = perplexity(loss="kd")
    assert perplexity("store.path=whole", loss="kd") == live
    top = ("store.path=top", "store.codec=top", "store.size=64")
    assert perplexity(*top, loss="top_k") == pytest.approx(perplexity(loss="top_k"))


def test_a_store_has_the_roles_that_the_scheme_itself_reads(tmp_path: Path) -> None:
    one = stored(
        tmp_path / "answers",
        "train={steps: 2}",
        "baselines=[]",
        scheme={"type": "ard", "attack_steps": 1},
        objectives={"cross_entropy": {}},
        seeds=[0],
    )
    record_outputs(one, Console(quiet=True))
    assert run_of(one, tmp_path / "run")["distilled"]["accuracy"]["mean"] >= 0


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ("store", {"store": {"path": "answers"}}),
        ("teacher.precompute", {"teacher": {"model": "cnn", "precompute": True}}),
        ("teacher.model", {"teacher": "predictions:teacher.npz"}),
        ("teacher.scheme", {"teacher": {"model": "cnn", "scheme": "filter_kd"}}),
    ],
)
def test_outputs_of_the_data_do_not_fit_a_scheme_that_changes_the_inputs(
    key: str, sections: dict[str, Any]
) -> None:
    for scheme in ("iad", "momentum_contrast"):
        one = recipe(scheme={"type": scheme}, **sections)
        with pytest.raises(RecipeError, match=rf"{key}: .* the scheme {scheme} changes the inputs"):
            check_changed_inputs(one)
    check_changed_inputs(recipe(scheme={"type": "ard"}, **sections))


def arrays_of(folder: Path, wrong_label: bool = False) -> dict[str, Any]:
    """Write digits with splits to ``data.npz``; return the section ``data``."""
    splits = digits()
    parts = (splits.train.subset(torch.arange(60)), splits.validation, splits.test)
    image = torch.cat([part.image for part in parts]).numpy()
    label = torch.cat([part.label for part in parts])
    if wrong_label:
        label[-1] = (label[-1] + 1) % 10
    split = np.repeat([0, 1, 2], [len(part) for part in parts])
    np.savez(folder / "data.npz", image=image, label=label.numpy(), split=split)
    return {"name": f"npz:{folder / 'data.npz'}", "batch_size": 30}


def test_other_test_labels_or_metrics_need_new_scores_but_no_new_training_outputs(
    tmp_path: Path,
) -> None:
    def one(*changes: str) -> Recipe:
        name = f"npz:{tmp_path / 'data.npz'}"
        return stored(
            tmp_path / "store",
            "baselines=[]",
            "seeds=[0]",
            "train={steps: 2}",
            *changes,
            data={"name": name, "batch_size": 30},
        )

    arrays_of(tmp_path)
    record_outputs(one(), Console(quiet=True))
    (train,) = (tmp_path / "store").glob("train-0*")
    moment = train.stat().st_mtime_ns
    arrays_of(tmp_path, wrong_label=True)
    for check in (doctor, lambda recipe: run_of(recipe, tmp_path / "run")):
        with pytest.raises(RecipeError, match=r"store\.path: the test data or their labels have"):
            check(one())
    assert not (tmp_path / "run").exists()
    record_outputs(one(), Console(quiet=True))
    assert train.stat().st_mtime_ns == moment
    live = run_of(one().model_copy(update={"store": None}), tmp_path / "live")
    assert numbers(run_of(one(), tmp_path / "run")) == numbers(live)
    with pytest.raises(RecipeError, match=r"metrics\.macro_f1: the store .* has no such score"):
        doctor(one("metrics=[macro_f1]"))
    record_outputs(one("metrics=[macro_f1]"), Console(quiet=True))
    again = run_of(one("metrics=[macro_f1]"), tmp_path / "again")
    assert "macro_f1" in again["teacher"]


def test_a_store_needs_no_weights_of_its_teacher(tmp_path: Path) -> None:
    changes = ("baselines=[]", "seeds=[0]", "train={steps: 2}")
    run_of(recipe(*changes), tmp_path / "first")
    weights = tmp_path / "student.safetensors"
    weights.write_bytes((tmp_path / "first" / "student.safetensors").read_bytes())
    student = recipe().student
    teacher = {"model": student.model, "options": student.options, "weights": str(weights)}
    one = stored(tmp_path / "store", *changes, teacher=teacher)
    record_outputs(one, Console(quiet=True))
    before = run_of(one, tmp_path / "before")
    weights.unlink()
    assert numbers(run_of(one, tmp_path / "after")) == numbers(before)


def test_a_run_from_a_store_states_the_labels_of_its_teacher(store: str, tmp_path: Path) -> None:
    labels = run_of(stored(store, *VIEWS, "baselines=[]"), tmp_path / "run")["labels"]
    assert [teacher["labelled"] for teacher in labels["teachers"]] == [1000]


def test_without_zstandard_no_teacher_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setattr("instil.plan.recording.dry_run", lambda _: pytest.fail("started"))
    with pytest.raises(ImportError, match=r'zstandard: pip install "instil\[record\]"'):
        record_outputs(stored(tmp_path / "store"), Console(quiet=True))
