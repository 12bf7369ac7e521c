"""Texts of servers with the student's weights: formats, pushes and errors.

``Serving`` is a fake with the endpoints of vLLM and SGLang. It loads the pushed folder and samples
from the model in it. The responses have the fields that the documentation of SGLang and the source
of vLLM describe.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Batch, Net, Objectives
from instil.engine import Optimization
from instil.export.transformers import to_standard_model
from instil.functional.token_log_probs import token_log_probs
from instil.generation.options import Sampling
from instil.generation.rollout_options import Rollouts
from instil.objectives.logits.reverse_kl import ReverseKL
from instil.remote.connection import Connection, ServerUnreachableError
from instil.remote.server_process import ServerProcess
from instil.remote.server_texts import ServerTexts
from instil.remote.text_formats import SERVERS, TextRequest, read_text
from instil.schemes.language.on_policy import OnPolicy
from instil.tasks.language import call
from instil.teachers.frozen import Frozen
from instil.training.fit import Training, fit
from tests import llama_cpp
from tests.schemes.texts import END, VOCABULARY, prompts

pytest.importorskip("transformers")


def llama(seed: int, vocabulary: int = VOCABULARY) -> Net:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=0.5,
            bos_token_id=0,
            eos_token_id=END,
        )
        return Net(LlamaForCausalLM(config), call)


def write(net: Net, path: Path) -> None:
    to_standard_model(net.model).save_pretrained(path)


class Serving(ThreadingHTTPServer):
    """Fake of vLLM and SGLang with the weights of a folder."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model: Any = None
        self.requests: list[tuple[str, Any]] = []
        self.loads = True
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def load(self, folder: str) -> None:
        from transformers import LlamaForCausalLM

        if self.loads:
            self.model = LlamaForCausalLM.from_pretrained(folder).eval()

    @torch.no_grad()
    def sample(self, prompt: list[int], count: int, seed: int, ends: list[int]) -> Any:
        generator = torch.Generator().manual_seed(seed)
        ids = list(prompt)
        log_probs: list[float] = []
        while len(log_probs) < count and not (log_probs and ids[-1] in ends):
            log = self.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            token = int(torch.multinomial(log.exp(), 1, generator=generator))
            ids.append(token)
            log_probs.append(float(log[token]))
        return ids[len(prompt) :], log_probs

    def answer(self, path: str, body: Any) -> Any:
        if path == "/collective_rpc":
            self.load(body["kwargs"]["weights_path"])
            return {"results": [None]}
        if path == "/reset_prefix_cache":
            return None
        if path == "/update_weights_from_disk":
            self.load(body["model_path"])
            message = "Succeeded to update model weights." if self.loads else "no such file"
            return {"success": self.loads, "message": message, "num_paused_requests": 0}
        if path == "/generate":
            options = body["sampling_params"]
            seed, ends = options["sampling_seed"], options["stop_token_ids"]
            tokens, values = self.sample(body["input_ids"], options["max_new_tokens"], seed, ends)
            pairs = [[value, token, None] for token, value in zip(tokens, values, strict=True)]
            return {"text": "", "output_ids": tokens, "meta_info": {"output_token_logprobs": pairs}}
        tokens, values = self.sample(
            body["prompt"], body["max_tokens"], body["seed"], body["stop_token_ids"]
        )
        choice = {"text": "", "token_ids": tokens, "logprobs": {"token_logprobs": values}}
        return {"choices": [choice]}


class Handler(BaseHTTPRequestHandler):
    server: Serving
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply({"data": [{"id": "student"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, body))
            self.reply(self.server.answer(self.path, body))

    def reply(self, answer: Any) -> None:
        data = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serving() -> Iterator[Serving]:
    with serve() as server:
        yield server


@contextmanager
def serve() -> Iterator[Serving]:
    server = Serving()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def source(kind: str, url: str, folder: Path, **options: Any) -> ServerTexts:
    named: dict[str, Any] = {"server": kind, "url": url, "folder": str(folder)} | options
    rollouts = Rollouts(**named)
    return ServerTexts(rollouts, Sampling(eos_token_id=END), VOCABULARY, "scheme.text", write)


def check_texts(text: Batch, batch: Batch, student: Net) -> None:
    """Check the layout of generated texts, and their log-probabilities under the student."""
    has_text = batch["valid"].any(1)
    assert torch.equal(text["valid"].any(1), has_text)
    assert torch.equal(text["valid"], text["token"] >= 0)
    start = batch["valid"].int().argmax(1) + 1
    for row in has_text.nonzero()[:, 0].tolist():
        first = int(start[row])
        assert torch.equal(text["input_ids"][row, :first], batch["input_ids"][row, :first])
        tokens = text["token"][row][text["valid"][row]].tolist()
        assert END not in tokens[:-1]
        assert tokens[-1] == END or first + len(tokens) == batch["input_ids"].shape[1] + 1
        following = text["input_ids"][row, first:].tolist()
        assert following[: len(tokens)] == tokens[: len(following)]
    student.eval()
    with torch.no_grad():
        own = token_log_probs(student(text)["logits"], text["token"])
    if "log_probability" in text:
        assert torch.allclose(own, text["log_probability"], atol=1e-4)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_texts_have_the_pushed_weights_and_their_own_seeds(
    kind: str, serving: Serving, tmp_path: Path
) -> None:
    texts = source(kind, serving.url, tmp_path)
    batch = prompts(3, 8) | {"step": torch.tensor(3), "seed": torch.tensor(0)}
    generated = []
    for version, seed in enumerate((1, 2)):
        student = llama(seed)
        if version == 0:
            texts.start(student)
        texts.push(student, version)
        text = texts.generate(batch)
        check_texts(text, batch, student)
        generated.append(text["token"])
    assert not torch.equal(*generated)
    # A text does not depend on the other rows of its batch.
    half = {key: value[4:] if value.ndim else value for key, value in batch.items()}
    assert torch.equal(texts.generate(half)["token"], generated[1][4:])
    paths = [path for path, _ in serving.requests]
    pushes = {
        "vllm": ["/collective_rpc", "/reset_prefix_cache"],
        "sglang": ["/update_weights_from_disk"],
    }[kind]
    assert [path for path in paths if path in pushes] == 2 * pushes


def test_a_server_with_other_weights_is_an_error_at_the_first_push(
    serving: Serving, tmp_path: Path
) -> None:
    texts = source("vllm", serving.url, tmp_path)
    serving.model, serving.loads = llama(5).model, False
    with pytest.raises(ValueError, match=r"scheme\.rollouts\.url: vLLM has other weights"):
        texts.push(llama(1), 0)
    with pytest.raises(ValueError, match=r"has not loaded .*no such file"):
        source("sglang", serving.url, tmp_path).push(llama(1), 0)


def test_training_with_a_server_logs_the_age_of_its_texts(serving: Serving, tmp_path: Path) -> None:
    rollouts = Rollouts(staleness=2, server="vllm", url=serving.url, folder=str(tmp_path))
    objectives = Objectives({"reverse_kl": ReverseKL()})
    scheme = OnPolicy(
        llama(1), Frozen(llama(2)), objectives, 1.0, Sampling(eos_token_id=END), rollouts
    )
    scheme.set_student_writer(write)
    loader = [prompts(step, 4) for step in range(5)]
    settings = Training(epochs=1, device="cpu", optimizer=Optimization("sgd", {"lr": 0.1}))
    result = fit(scheme, loader, settings)
    # Texts of weights 0 for steps 0 to 2, of weights 2 for steps 3 and 4.
    assert result.records[0]["staleness"] == pytest.approx((0 + 1 + 2 + 1 + 2) / 5)
    assert result.records[0]["rollout_version"] == 2
    assert [path for path, _ in serving.requests].count("/collective_rpc") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "http://x/v1"}, "url: it belongs to a server"),
        ({"server": "vllm", "folder": "weights"}, r"url: it is missing"),
        ({"server": "sglang", "url": "http://x/v1"}, r"folder: it is missing"),
        (
            {"server": "llama_cpp", "url": "http://x/v1", "folder": "weights"},
            r"command: llama\.cpp cannot load new weights while it runs",
        ),
        (
            {"server": "vllm", "url": "http://x/v1", "folder": "w", "device": "cuda:1"},
            "device: a server has its own device",
        ),
    ],
)
def test_options_that_do_not_fit_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rollouts(**options)


def test_a_missing_server_is_an_error_before_the_training(tmp_path: Path) -> None:
    rollouts = Rollouts(server="vllm", url="http://127.0.0.1:9/v1", folder=str(tmp_path))
    scheme = OnPolicy(llama(1), Frozen(llama(2)), {"reverse_kl": ReverseKL()}, rollouts=rollouts)
    with pytest.raises(ValueError, match="set_student_writer"):
        scheme.prepare(prompts())
    scheme.set_student_writer(write)
    message = r"scheme\.rollouts\.url: .* no server listens there.* weights .* are in .*student"
    with pytest.raises(ValueError, match=message):
        scheme.prepare(prompts())
    assert (tmp_path / "student" / "config.json").is_file()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"choices": []}, "no tokens in the format of vLLM"),
        (
            {"choices": [{"token_ids": [1, 2], "logprobs": {"token_logprobs": [-1.0]}}]},
            "wrong number of log-probabilities. Expected 2, got 1",
        ),
        (
            {"choices": [{"token_ids": [11], "logprobs": {"token_logprobs": [-1.0]}}]},
            "a token that the student does not have. Expected at most 10, got 11",
        ),
    ],
)
def test_responses_that_do_not_fit_are_errors(response: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_text(SERVERS["vllm"], response, VOCABULARY)


LLAMA_SERVER = """
import sys, threading, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.port = sys.argv[1], int(sys.argv[2])
parameters.n_ctx, parameters.n_parallel, parameters.warmup, parameters.verbosity = 512, 2, False, -1
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(parameters)
threading.Event().wait()
"""


@llama_cpp.needed
def test_llama_cpp_is_started_again_with_new_weights(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from instil.export.gguf import to_gguf
    from tests.export.test_gguf import TEXT, batch_of, digits, student, words

    tokenizer = words(digits)
    ids = tokenizer.encode(TEXT)[0]

    def write_gguf(net: Net, path: Path) -> None:
        to_gguf(net, batch_of(ids), path, tokenizer, "f32")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rollouts = Rollouts(
        server="llama_cpp",
        url=f"http://127.0.0.1:{port}/v1",
        folder=str(tmp_path),
        command=[sys.executable, "-c", LLAMA_SERVER, "{file}", str(port)],
        concurrency=2,
    )
    greedy = Sampling(temperature=0.0, max_new_tokens=6, eos_token_id=tokenizer.end)
    texts = ServerTexts(rollouts, greedy, tokenizer.size, "scheme.text", write_gguf)
    rows = torch.tensor([ids[:12], ids[6:18]])
    valid = torch.zeros(rows.shape, dtype=torch.bool)
    valid[:, 4:] = True
    batch = {
        "input_ids": rows,
        "attention_mask": torch.ones_like(rows),
        "valid": valid,
        "index": torch.arange(2),
    }
    generated = []
    try:
        for version in range(2):
            net = student(tokenizer.size)
            with torch.no_grad():
                net.model.lm_head.weight.mul_(-1.0 if version else 1.0)
            if version == 0:
                texts.start(net)
                with pytest.raises(ServerUnreachableError):
                    texts.connection.get(f"{texts.connection.root}/health")
            texts.push(net, version)
            text = texts.generate(batch)
            with torch.no_grad():
                best = net(text)["logits"].argmax(-1)
            assert torch.equal(best[text["valid"]], text["token"][text["valid"]])
            generated.append(text["token"])
    finally:
        texts.close()
    assert not torch.equal(*generated)
    assert "log_probability" not in text


def test_a_command_that_ends_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    texts = source(
        "llama_cpp",
        "http://127.0.0.1:9/v1",
        tmp_path,
        command=[sys.executable, "-c", "raise SystemExit('no {file} for you')"],
    )
    with pytest.raises(ValueError, match=r"command: the server has ended: no .*student\.gguf"):
        texts.start(llama(1))


def test_a_server_that_responds_before_the_command_is_an_error(serving: Serving) -> None:
    """It would generate the texts, with other weights, if the command cannot use its port."""
    process = ServerProcess([sys.executable, "-c", "input()"], Connection(serving.url, "KEY"))
    with pytest.raises(ValueError, match=r"command: another server responds at http://127.0.0.1"):
        process.start()


@llama_cpp.needed
def test_llama_cpp_applies_the_temperature_before_top_p(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from instil.export.gguf import to_gguf
    from tests.export.test_gguf import TEXT, batch_of, digits, student, words

    tokenizer = words(digits)
    prompt = tokenizer.encode(TEXT)[0][:8]
    net = student(tokenizer.size)
    to_gguf(net, batch_of(prompt), tmp_path / "student.gguf", tokenizer, "f32")
    with torch.no_grad():
        logits = net(batch_of(prompt))["logits"][0, -1]
    kind = SERVERS["llama_cpp"]
    temperature, top_p = 4.0, 0.5
    with llama_cpp.serving(tmp_path / "student.gguf", exact=True) as url:
        tokens = set()
        for seed in range(40):
            body = kind.body(TextRequest(prompt, 1, seed, temperature, top_p, ()), "")
            response = llama_cpp.request(url, kind.address(""), **body)
            tokens |= set(read_text(kind, response, tokenizer.size)[0])
    nuclei = [nucleus((logits / divisor).softmax(-1), top_p) for divisor in (1.0, temperature)]
    assert tokens <= nuclei[1]
    assert not tokens <= nuclei[0]


def nucleus(probability: torch.Tensor, mass: float) -> set[int]:
    """Most likely tokens that together reach a probability mass."""
    ordered, order = probability.sort(descending=True)
    return set(order[ordered.cumsum(0) - ordered < mass].tolist())
