"""Server that holds the student's weights, as the source of its texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from instil.core import Batch, Net, side_effect_free
from instil.functional.keyed_random import keyed_uniform
from instil.functional.token_log_probs import token_log_probs
from instil.generation.options import Sampling
from instil.generation.rollout import prompt_lengths, stop_tokens, text_of_tokens
from instil.generation.rollout_options import Rollouts
from instil.remote.connection import Connection
from instil.remote.discovery import find_model
from instil.remote.parallel import run_parallel
from instil.remote.server_process import ServerProcess
from instil.remote.text_formats import SERVERS, Generated, TextRequest, read_text

WriteStudent = Callable[[Net, Path], None]
"""Writes the student to the path that a server reads."""
MAX_DIFFERENCE = 0.5
"""Largest difference of a log-probability between the student and a server with its weights."""
PROBE_TOKENS = 4
SEEDS = 2**24
"""Number of seeds of a text, the resolution of a keyed number."""


class ServerTexts:
    """Texts of a server that holds the student's weights.

    The first push checks that the server computes the log-probabilities of the student.

    Args:
        options: kind and address of the server.
        sampling: options of the generated text.
        vocabulary: number of tokens of the student.
        stream: random stream of the seeds of the texts.
        write: writes the student for the server.
    """

    def __init__(
        self,
        options: Rollouts,
        sampling: Sampling,
        vocabulary: int | None,
        stream: str,
        write: WriteStudent,
    ):
        assert options.server is not None
        assert options.url is not None
        assert options.folder is not None
        self.options = options
        self.sampling = sampling
        self.vocabulary = vocabulary
        self.stream = stream
        self.write = write
        self.kind = SERVERS[options.server]
        self.connection = Connection(options.url, options.key, options.timeout)
        name = "student.gguf" if self.kind.push is None else "student"
        self.path = (Path(options.folder) / name).absolute()
        command = [part.replace("{file}", str(self.path)) for part in options.command or ()]
        self.process = ServerProcess(command, self.connection) if command else None
        self.is_checked = False
        self.model = ""

    def start(self, student: Net) -> None:
        """Write the student and find the server, before the training.

        A server that is started here ends again; the first push starts it with current weights.

        Args:
            student: the student.

        Raises:
            ValueError: if there is no server.
        """
        self.write(student, self.path)
        if self.process is not None:
            self.process.start()
        try:
            self.model = find_model(self.connection, None)
        except ValueError as error:
            raise ValueError(f"{error}. The weights of the student are in {self.path}") from error
        finally:
            # Another scheme of the same run may start its server before this one trains.
            self.close()

    def push(self, student: Net, version: int) -> None:
        """Write the student's weights and load them into the server."""
        if self.process is not None:
            self.process.stop()
        self.write(student, self.path)
        if self.process is not None:
            self.process.start()
        if self.kind.push is not None:
            self.kind.push(self.connection, str(self.path), version)
        if not self.is_checked:
            self._check_weights(student)
            self.is_checked = True

    def close(self) -> None:
        """End the process of the server, if it was started here."""
        if self.process is not None:
            self.process.stop()

    def generate(self, batch: Batch) -> Batch:
        """Generate a text after each prompt of a batch."""
        ids = batch["input_ids"]
        starts = prompt_lengths(batch, self.sampling.min_prompt_tokens).tolist()
        has_text = batch["valid"].any(1).tolist()
        seeds = (keyed_uniform(batch, 1, self.stream)[:, 0] * SEEDS).long().tolist()
        temperature, top_p = self.sampling.distribution(batch)
        ends = stop_tokens(self.sampling.eos_token_id)
        rows = [index for index, is_valid in enumerate(has_text) if is_valid]
        requests = []
        for row in rows:
            room = ids.shape[1] + 1 - starts[row]
            limit = min(room, self.sampling.max_new_tokens or room)
            prompt = ids[row, : starts[row]].tolist()
            requests.append(TextRequest(prompt, limit, seeds[row], temperature, top_p, ends))
        answers = dict(
            run_parallel(self._request, requests, self.connection, self.options.concurrency)
        )
        texts: list[Generated] = [([], [])] * len(ids)
        for index, row in enumerate(rows):
            texts[row] = answers[index]
        return text_of_tokens(batch, texts, ends, self.sampling.min_prompt_tokens)

    def _request(self, request: TextRequest) -> Generated:
        address = self.kind.address(self.connection.root)
        response = self.connection.post(address, self.kind.body(request, self.model))
        tokens, log_probs = read_text(self.kind, response, self.vocabulary)
        stop = next((i + 1 for i, token in enumerate(tokens) if token in request.ends), None)
        stop = min(stop or request.max_tokens, request.max_tokens)
        return tokens[:stop], None if log_probs is None else log_probs[:stop]

    def _check_weights(self, student: Net) -> None:
        """Raise ValueError if the server computes other log-probabilities than the student."""
        prompt = [index % (self.vocabulary or 1) for index in range(1, 1 + PROBE_TOKENS)]
        tokens, log_probs = self._request(TextRequest(prompt, PROBE_TOKENS, 0, 1.0, 1.0, ()))
        if log_probs is None:
            return
        device = next(student.parameters()).device
        ids = torch.tensor([prompt + tokens], device=device)
        batch = {"input_ids": ids[:, :-1], "attention_mask": torch.ones_like(ids[:, :-1])}
        with side_effect_free(student):
            logits = student(batch)["logits"][..., : self.vocabulary]
        own = token_log_probs(logits, ids[:, 1:])[0, len(prompt) - 1 :].cpu()
        difference = float((own - torch.tensor(log_probs)).abs().max())
        # The negated comparison is also true for NaN.
        if not difference <= MAX_DIFFERENCE:
            raise ValueError(
                f"scheme.rollouts.url: {self.kind.name} has other weights or another tokenizer "
                f"than the student. Expected log-probabilities within {MAX_DIFFERENCE}, got a "
                f"difference of {difference:.2g}. Start the server with {self.path}"
            )
