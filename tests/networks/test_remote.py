"""A student of a model behind a server, live or recorded, and the errors."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from instil.core import Net
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.networks.factory import build as network
from instil.plan.recording import record_outputs
from instil.recipe import to_yaml
from instil.recipe.sections import Recipe
from instil.tasks import language
from instil.teachers.routed import Routed
from tests.cli.test_cli import called
from tests.experiment.small import lines, recipe, run_of
from tests.remote.stub import Stub, likeliest, stub

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return letters in the order that the server's model expects."""
    (tmp_path / "texts").mkdir()
    for i in range(20):
        (tmp_path / "texts" / f"{i}.txt").write_text(ALPHABET[i:] + ALPHABET * 3)
    return tmp_path / "texts"


def taught(server: Stub | str, texts: Path, *changes: str, **sections: Any) -> Recipe:
    url = server if isinstance(server, str) else server.url
    basic: dict[str, Any] = {
        "task": {"name": "language"},
        "data": {
            "name": "text",
            "path": str(texts),
            "length": 16,
            "rows": 24,
            "held_out": 8,
            "batch_size": 8,
        },
        "teacher": {"model": "remote", "options": {"url": url, "size": 5}},
        "student": {"model": "causal_transformer", "options": {"width": 16, "depth": 1}},
        "objectives": {"top_k": {}},
        "train": {"epochs": 2, "optimizer": {"lr": 1e-2}},
        "seeds": [0],
    }
    return recipe(*changes, **basic | sections)


def losses(folder: Path) -> list[float]:
    values: list[float] = []
    for line in lines(folder):
        if line["arm"] == "distilled":
            values += line["losses"].values()
    return values


def test_top_tokens_of_all_positions_except_padding() -> None:
    ids, mask = torch.tensor([[97, 98, 99], [101, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    with stub("vllm") as server:
        net = Net(network("remote", {"url": server.url, "size": 3}, vocabulary=257), language.call)
        outputs = net({"input_ids": ids, "attention_mask": mask})
        assert set(outputs) == {"top"}
        top = outputs["top"]
    for row, position in ((0, 0), (0, 2), (1, 0)):
        assert top.indices[row, position].tolist() == [
            token for token, _ in likeliest(ids[row, : position + 1].tolist(), 3)
        ]
    assert math.exp(float(top.log_tail[0, 0])) == pytest.approx(1 / 8)
    assert top.values[1, 1:].exp().sum(-1) + top.log_tail[1, 1:].exp() == pytest.approx(1)


def test_each_row_goes_to_the_server_of_its_teacher() -> None:
    ids = torch.randint(97, 120, (6, 5), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch["teacher_id"] = torch.tensor([1, 0, 1, 1, 0, 1])
    with stub("vllm", ("one",)) as first, stub("vllm", ("two",)) as second:
        nets = []
        for server in (first, second):
            options = {"url": server.url, "size": 3, "name": server.models[0]}
            nets.append(Net(network("remote", options, vocabulary=257), language.call))
        top = Routed(nets, "teacher_id")(batch)["top"]
        for index, server in enumerate((first, second)):
            sent = {tuple(json.loads(one)[1]["prompt"][:5]) for one in server.answered}
            rows = ids[batch["teacher_id"] == index].tolist()
            assert {row for row in sent if len(row) == 5} == set(map(tuple, rows))
        alone = nets[0](batch)["top"]
        with pytest.raises(ValueError, match=r"teacher_id .* from 0 to 1, got 2"):
            Routed(nets, "teacher_id")(batch | {"teacher_id": torch.full((6,), 2)})
    assert torch.equal(top.indices, alone.indices), "the rows are in their order"
    torch.testing.assert_close(top.values, alone.values)
    torch.testing.assert_close(top.log_tail, alone.log_tail)


@pytest.mark.slow
def test_servers_by_row_are_recorded(tmp_path: Path) -> None:
    rows = []
    for i in range(36):
        rows.append({"text": (ALPHABET + ALPHABET[::-1])[i : i + 8], "teacher_id": i % 2})
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    data = {"name": "chat", "files": str(file), "tokenizer": "bytes", "length": 16}
    with stub("vllm", ("one",)) as first, stub("vllm", ("two",)) as second:
        teachers = []
        for server in (first, second):
            options = {"url": server.url, "size": 5, "name": server.models[0]}
            teachers.append({"model": "remote", "options": options})
        sections: dict[str, Any] = {
            "data": data | {"batch_size": 4, "validation": 0.2, "test": 0.2},
            "teacher": teachers,
            "ensemble": {"type": "routed", "by": "teacher_id"},
            "train": {"epochs": 1, "optimizer": {"lr": 1e-2}},
            "baselines": [],
        }
        one = taught("", tmp_path, f"store.path={tmp_path / 'store'}", **sections)
        record_outputs(one, Console(quiet=True))
        result = run_of(one, tmp_path / "run")
        for index, server in enumerate((first, second)):
            prompts = [json.loads(question)[1].get("prompt") for question in server.answered]
            begins = {bytes(ids[:8]).decode() for ids in prompts if ids and len(ids) >= 8}
            own = {row["text"] for row in rows if row["teacher_id"] == index}
            # Two teachers have 18 rows each; the test rows are not recorded.
            assert len(begins & own) > 12
            # The check of the vocabulary before the recording reads one batch.
            assert len(begins - own) <= 4
    assert result["status"] == "complete"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vllm", "llama"])
def test_recorded_outputs_equal_those_of_the_live_teacher(
    kind: str, texts: Path, tmp_path: Path
) -> None:
    with stub(kind) as server:
        live = run_of(taught(server, texts), tmp_path / "live")
        num_requests = sum(server.answered.values())
        assert num_requests <= 24 * (1 if kind == "vllm" else 16) + 3, (
            "the second epoch sends no request"
        )
        record_outputs(
            taught(server, texts, f"store.path={tmp_path / 'store'}"), Console(quiet=True)
        )
        assert sum(server.answered.values()) <= num_requests + 3, (
            "the answers of the live teacher are in its log"
        )
    stored = run_of(
        taught("http://127.0.0.1:9/v1", texts, f"store.path={tmp_path / 'store'}"),
        tmp_path / "stored",
    )
    assert losses(tmp_path / "stored") == losses(tmp_path / "live")
    assert losses(tmp_path / "live")[-1] < losses(tmp_path / "live")[0]
    assert set(live["cost"]) == set(stored["cost"]) == {"student"}, (
        "the cost of a remote model is unknown"
    )
    assert stored["distilled"]["loss"]["mean"] == live["distilled"]["loss"]["mean"]
    with pytest.raises(ValueError, match=r"teacher\.options\.size was 5 and is 4"):
        run_of(
            taught(
                "http://127.0.0.1:9/v1",
                texts,
                f"store.path={tmp_path / 'store'}",
                "teacher.options.size=4",
            ),
            tmp_path / "other",
        )


def test_a_recording_resumes_where_the_budget_ended(texts: Path, tmp_path: Path) -> None:
    changes = (f"store.path={tmp_path / 'store'}", f"teacher.options.log={tmp_path / 'log.jsonl'}")
    with stub("vllm") as server:
        with pytest.raises(
            ValueError,
            match=r"request_budget: 12 of 12 requests are spent; raise the limit and start "
            r"again: .* in .*log\.jsonl",
        ):
            record_outputs(
                taught(server, texts, *changes, "teacher.options.request_budget=12"),
                Console(quiet=True),
            )
        record_outputs(
            taught(server, texts, *changes, "teacher.options.request_budget=40"),
            Console(quiet=True),
        )
        rows = [
            count
            for question, count in server.answered.items()
            if '"prompt_logprobs": 5' in question
        ]
        assert len(rows) > 12
        assert set(rows) == {1}
        assert len((tmp_path / "log.jsonl").read_text().splitlines()) == len(rows) + 2, (
            "one line per row, and two notes"
        )
    run_of(taught("http://127.0.0.1:9/v1", texts, *changes), tmp_path / "run")


def test_unread_outputs_are_not_requested() -> None:
    ids = torch.arange(200).view(2, 100)
    with stub("vllm") as server:
        net = network("remote", {"url": server.url, "size": 3}, vocabulary=257)
        net(ids)
        num_requests = sum(server.answered.values())
        again = net(ids + 1)
        assert sum(server.answered.values()) == num_requests == 3
        assert again["top"].indices[0, 0, 0] == 2
        assert sum(server.answered.values()) == 5


def test_an_objective_of_whole_distributions_raises(texts: Path) -> None:
    with (
        stub("vllm") as server,
        pytest.raises(ValueError, match=r"objectives\.forward_kl: .*top.*top_k"),
    ):
        list(dry_run(Experiment.from_recipe(taught(server, texts, objectives={"forward_kl": {}}))))


def test_a_server_without_log_probabilities_raises_before_training(texts: Path) -> None:
    with (
        stub("text") as server,
        pytest.raises(
            ValueError,
            match=r"^teacher: .*http.* returns no log-probabilities of a text.*instil generate",
        ),
    ):
        list(dry_run(Experiment.from_recipe(taught(server, texts))))


def test_another_vocabulary_raises(texts: Path, tmp_path: Path) -> None:
    with stub("vllm") as server:
        (tmp_path / "back").mkdir()
        for i in range(20):
            (tmp_path / "back" / f"{i}.txt").write_text(ALPHABET[::-1] * 4)
        with pytest.raises(
            ValueError,
            match=r"vocabulary: only 0% of 1\d\d tokens are among the 5 most likely tokens of the "
            r"server's model.*data\.tokenizer",
        ):
            list(dry_run(Experiment.from_recipe(taught(server, tmp_path / "back"))))
        small = network("remote", {"url": server.url, "size": 3}, vocabulary=100)
        with pytest.raises(
            ValueError,
            match=r"vocabulary: the server's model has a token 101, but the tokenizer "
            r"of the data has 100 tokens",
        ):
            _ = small(torch.tensor([[97, 98]]))["top"]
        with pytest.raises(
            ValueError,
            match=r"teacher: data\.prune: the server's model predicts its whole vocabulary",
        ):
            list(dry_run(Experiment.from_recipe(taught(server, texts, "data.prune=true"))))
        with pytest.raises(ValueError, match="a model on a server needs token ids"):
            network("remote", {"url": server.url}, classes=10)


def test_an_unreachable_server_raises(texts: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"teacher.options.url: http://127\.0\.0\.1:9/v1/models: no response in 1 "
        "attempt; the last error: no server listens there",
    ):
        list(dry_run(Experiment.from_recipe(taught("http://127.0.0.1:9/v1", texts))))


@pytest.mark.slow
def test_a_killed_recording_resumes_without_repeated_requests(texts: Path, tmp_path: Path) -> None:
    with stub("vllm", delay=0.05) as server:
        one = taught(
            server, texts, f"store.path={tmp_path / 'store'}", "teacher.options.concurrency=2"
        )
        (tmp_path / "one.yaml").write_text(to_yaml(one))
        command = [sys.executable, "-m", "instil.cli", "record", str(tmp_path / "one.yaml")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while len(server.answered) < 14:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.wait()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = [
            count
            for question, count in server.answered.items()
            if '"prompt_logprobs": 5' in question
        ]
    assert len(rows) > 14
    assert sum(rows) - len(rows) <= 2, "only requests in progress are repeated"
    assert run_of(one, tmp_path / "run")["status"] == "complete"


def test_objectives_of_other_roles_raise(texts: Path) -> None:
    with stub("vllm") as server:
        for name in ("kd", "patient_kd"):
            with pytest.raises(
                ValueError, match=rf"objectives\.{name}: .* of the teacher, which outputs top"
            ):
                list(dry_run(Experiment.from_recipe(taught(server, texts, objectives={name: {}}))))


def test_doctor_reports_an_unreachable_server(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.yaml").write_text(to_yaml(taught("http://127.0.0.1:9/v1", texts)))
    code, out, err = called(capsys, "doctor", str(tmp_path / "one.yaml"))
    assert (code, out) == (2, "")
    assert err.startswith("Error: teacher.options.url: http://127.0.0.1:9/v1/models: no response")
    assert err.endswith("no server listens there. Start the server, or correct the address\n")
