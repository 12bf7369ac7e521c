"""A language model behind an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.remote.answers import (
    POSITIONS,
    TEXT,
    completion_text,
    replace_surrogates,
)
from instil.remote.budget import Budget
from instil.remote.connection import Connection, RequestRefusedError
from instil.remote.discovery import find_endpoint, find_model
from instil.remote.label_probs import (
    TOKENS,
    Tokens,
    label_probabilities,
    read_first_tokens,
    request_options,
)
from instil.remote.log import Log
from instil.remote.log_probs import Endpoint, Position, Question, read_positions, to_top
from instil.remote.logged_requests import LoggedRequests
from instil.remote.parallel import run_parallel
from instil.roles import Top

KEY = "INSTIL_REMOTE_KEY"
WHOLE_VOCABULARY = {"top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""Options that sample from all tokens; servers have other defaults, such as the top 40."""


@dataclass(frozen=True)
class Completion:
    """Text of a completion and its finish reason: ``stop``, or ``length`` at the token limit."""

    text: str
    finish_reason: str


class Server:
    """Language model behind an OpenAI-compatible server.

    A response in the log is not requested again, by this process or another one.

    Args:
        url: address of the API, such as ``http://127.0.0.1:8080/v1``.
        name: name of the model; None: the only one of the server.
        key: environment variable with the API key.
        log: file of all responses; None: in memory.
        concurrency: number of requests in progress.
        request_budget: maximum number of requests in the log; None: no limit.
        token_budget: maximum number of tokens in the log; None: no limit.
        retries: maximum number of further attempts of a request.
        timeout: seconds for one complete response.

    Raises:
        ValueError: for a URL without a server, a wrong key or an unknown model. The message names
            the argument.
    """

    def __init__(
        self,
        url: str,
        name: str | None = None,
        key: str = KEY,
        log: str | Path | None = None,
        concurrency: int = 8,
        request_budget: int | None = None,
        token_budget: int | None = None,
        retries: int = 6,
        timeout: float = 120.0,
    ):
        if concurrency < 1:
            raise ValueError(
                f"concurrency: too few requests. Expected at least 1, got {concurrency}"
            )
        self.connection = Connection(url, key, timeout, retries)
        self.log = Log(None if log is None else Path(log))
        self.concurrency = concurrency
        self.budget = Budget(self.log, request_budget, token_budget, self.connection.stopped)
        self._endpoint: Endpoint | None = None
        self.name = find_model(self.connection, name)
        self._requests = LoggedRequests(self.name, self.connection, self.log, self.budget)

    def complete(self, prompts: Sequence[str], **options: Any) -> list[Completion]:
        """Complete each prompt.

        Args:
            prompts: user messages, or texts to continue with ``plain``.
            options: options of ``completions``.

        Returns:
            One completion for each prompt.

        Raises:
            RequestRefusedError: if the server refuses a prompt; and all errors of ``completions``.
        """
        answers = dict(self.completions(prompts, **options))
        for answer in answers.values():
            if isinstance(answer, Exception):
                raise answer
        return [answers[index] for index in range(len(prompts))]  # type: ignore[misc]

    def completions(
        self,
        prompts: Sequence[str],
        length: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
        plain: bool = False,
        system: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[int, Completion | RequestRefusedError]]:
        """Complete prompts in parallel.

        Args:
            prompts: user messages of a chat, or texts to continue with ``plain``.
            length: maximum number of tokens of a completion.
            temperature: softmax temperature; 0: the most likely token.
            seed: random seed of the sampling, which is from all tokens.
            plain: whether to continue each prompt as a text instead of a chat.
            system: system message of the chats.
            options: further entries of the request; None as a value removes an entry.

        Returns:
            Iterator over the index of a prompt and its completion, or the error of a server that
            refuses this prompt, in the order of completion.

        Raises:
            ServerUnreachableError: if there is no complete response in any attempt.
            BudgetExceededError: if the next request could exceed a budget.
            ValueError: if a response has no text.
        """
        entries = (
            {"model": self.name, "max_tokens": length, "temperature": temperature, "seed": seed}
            | WHOLE_VOCABULARY
            | dict(options or {})
        )
        entries = {key: value for key, value in entries.items() if value is not None}
        address = f"{self.connection.url}/{'completions' if plain else 'chat/completions'}"
        messages = [] if system is None else [{"role": "system", "content": system}]

        def complete_one(prompt: str) -> Completion | RequestRefusedError:
            body: dict[str, Any] = {"prompt": prompt}
            if not plain:
                body = {"messages": [*messages, {"role": "user", "content": prompt}]}
            # A token has at least one byte, so bytes bound the number of prompt tokens.
            max_tokens = _num_bytes(prompt) + _num_bytes(system or "") + length
            question = Question(address, entries | body, max_tokens)
            try:
                text, reason = self._requests.result(question, completion_text, TEXT)
                return Completion(replace_surrogates(text), reason)
            except RequestRefusedError as refusal:
                return refusal

        yield from run_parallel(complete_one, prompts, self.connection, self.concurrency)

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str], system: str | None = None
    ) -> list[list[float]]:
        """Return the probabilities of label words as the answers to prompts.

        Args:
            prompts: user messages.
            labels: label words; the first token of an answer decides between them.
            system: system message of the chats.

        Returns:
            For each prompt the probabilities of the labels, with the sum 1.

        Raises:
            ValueError: if the server returns no log-probabilities, or the labels do not fit.
            ServerUnreachableError: if there is no complete response in any attempt.
            BudgetExceededError: if the next request could exceed a budget.
        """
        address = f"{self.connection.url}/chat/completions"
        messages = [] if system is None else [{"role": "system", "content": system}]

        def first_tokens(prompt: str) -> Tokens:
            entries = {"messages": [*messages, {"role": "user", "content": prompt}]}
            max_tokens = _num_bytes(prompt) + _num_bytes(system or "") + 1
            question = Question(address, request_options(self.name) | entries, max_tokens)
            tokens: Tokens = self._requests.result(question, read_first_tokens, TOKENS)
            return tokens

        answers = dict(run_parallel(first_tokens, prompts, self.connection, self.concurrency))
        return [label_probabilities(answers[index], labels) for index in range(len(prompts))]

    def top(self, rows: Sequence[Sequence[int]], size: int = 20) -> list[Top]:
        """Return the most likely next tokens after each position of token sequences.

        Args:
            rows: sequences of T token ids.
            size: number of tokens at each position.

        Returns:
            The ``size`` largest log-probabilities and the probability of all other tokens, for
            each row.

        Raises:
            ValueError: for an empty row, and if the server returns no or too few log-probabilities
                of a text.
            ServerUnreachableError: if there is no complete response in any attempt.
            BudgetExceededError: if the next request could exceed a budget.
        """
        if empty := [index for index, row in enumerate(rows) if not row]:
            raise ValueError(f"rows: row {empty[0]} is empty. Expected at least one token")
        if self._endpoint is None:
            self._endpoint = find_endpoint(self.connection, self.name, self.log)
        endpoint = self._endpoint

        def top_of_row(row: Sequence[int]) -> Top:
            questions = endpoint.questions(
                self.connection.root, self.connection.url, self.name, row, size
            )
            count = len(row) // len(questions)

            def read(response: Any) -> list[Position]:
                return read_positions(endpoint, response, count, size)

            positions: list[Position] = []
            for question in questions:
                positions += self._requests.result(question, read, POSITIONS)
            return to_top(positions)

        try:
            tops = dict(run_parallel(top_of_row, rows, self.connection, self.concurrency))
        except RequestRefusedError as error:
            longest = max(map(len, rows))
            raise ValueError(
                f"{error} (the request was for the {size} most likely tokens after each of up to "
                f"{longest} tokens)"
            ) from error
        return [tops[index] for index in range(len(tops))]


def _num_bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
