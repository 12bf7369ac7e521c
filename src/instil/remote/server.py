"""A language model behind an OpenAI-compatible server."""

from __future__ import annotations

import concurrent.futures as futures
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Len
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from instil.cards import closest
from instil.remote.answers import (
    POSITIONS,
    TEXT,
    completion_text,
    model_names,
    replace_surrogates,
    used_tokens,
)
from instil.remote.budget import Budget
from instil.remote.connection import Connection, RequestRefusedError, ServerUnreachableError
from instil.remote.log import NOTE, Log, question_key
from instil.remote.tops import WAYS, Position, Question, Way, positions, top_of
from instil.roles import Top

KEY = "INSTIL_REMOTE_KEY"
WHOLE = {"top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""Draw from all tokens: servers have other defaults, such as the 40 likeliest."""

GRACE = 1.0
"""Seconds that an interrupt waits for answers that are under way."""
FIRST: TypeAdapter[Any] = TypeAdapter(
    tuple[Annotated[list[int], Len(1, 1)], Annotated[list[FiniteFloat], Len(1, 1)]]
)
"""Form of the answer to the first question, which tells one model from another."""

One = TypeVar("One")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Completion:
    """What a teacher wrote, and why it ended: ``stop``, or ``length`` where it was cut."""

    text: str
    finish_reason: str


class Server:
    """The model ``name`` (None: the only one there) at ``url``, such as http://127.0.0.1:8080/v1.

    ``key`` is the environment variable with the server's key. Every answer is kept in the file ``log`` (None: in memory) and never asked for again,
    by this process or another. ``concurrency`` requests are under way at a time; ``request_budget`` and ``token_budget`` count all answers in the
    log, and of whatever shares it just now. ``retries`` is of one request, ``timeout`` the seconds for one whole answer.

    Raises ValueError, which names the argument, where nothing answers at the URL, the key is wrong, or there is no such model.
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
            raise ValueError(f"concurrency: at least one request at a time, not {concurrency}")
        self.connection = Connection(url, key, timeout, retries)
        self.log, self.concurrency = Log(None if log is None else Path(log)), concurrency
        self.budget = Budget(self.log, request_budget, token_budget, self.connection.stopped)
        self._way: Way | None = None
        self.name = self._found(name)

    def complete(self, prompts: Sequence[str], **options: Any) -> list[Completion]:
        """What the model answers to each prompt; options are those of ``completions``. Raises what the first failing request raises."""
        found = dict(self.completions(prompts, **options))
        for answer in found.values():
            if isinstance(answer, Exception):
                raise answer
        return [found[number] for number in range(len(prompts))]  # type: ignore[misc]

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
        """The number of a prompt and its answer of at most ``length`` tokens, or why the server refuses this one, as they come.

        Each prompt is what a user says in a chat (after ``system``), or with ``plain`` a text to be continued. At temperature 0 the likeliest token
        is taken, else one is drawn from all tokens by ``seed``. ``options`` are further keys of the request, or None for one to be left out.

        Raises Unreachable, Spent, or ValueError for an answer that holds no text.
        """
        given = (
            {"model": self.name, "max_tokens": length, "temperature": temperature, "seed": seed}
            | WHOLE
            | dict(options or {})
        )
        given = {key: value for key, value in given.items() if value is not None}
        address = f"{self.connection.url}/{'completions' if plain else 'chat/completions'}"
        before = [] if system is None else [{"role": "system", "content": system}]

        def answered(prompt: str) -> Completion | RequestRefusedError:
            asked = (
                {"prompt": prompt}
                if plain
                else {"messages": [*before, {"role": "user", "content": prompt}]}
            )
            question = Question(
                address, given | asked, _bytes(prompt) + _bytes(system or "") + length
            )
            try:
                text, reason = self._answer(question, completion_text, TEXT)
                return Completion(replace_surrogates(text), reason)
            except RequestRefusedError as refusal:
                return refusal

        yield from self._each(answered, prompts)

    def top(self, rows: Sequence[Sequence[int]], size: int = 20) -> list[Top]:
        """Of each row of token numbers (T,) what may follow each position: the ``size`` likeliest tokens with log-probabilities, and the rest.

        Raises ValueError where the server gives no log-probabilities of given text, or fewer; Unreachable; Spent.
        """
        if empty := [number for number, row in enumerate(rows) if not row]:
            raise ValueError(f"rows: row {empty[0]} has no token")
        way = self._way or self._found_way()

        def answered(row: Sequence[int]) -> Top:
            questions = self._questions(way, row, size)
            each = len(row) // len(questions)
            found: list[Position] = []
            for question in questions:
                found += self._answer(
                    question, lambda answer: positions(way, answer, each, size), POSITIONS
                )
            return top_of(found)

        try:
            return [top for _, top in sorted(self._each(answered, rows), key=lambda pair: pair[0])]
        except RequestRefusedError as error:
            raise ValueError(
                f"{error} (asked for the {size} likeliest tokens after each of up to {max(map(len, rows))})"
            ) from error

    def _found(self, name: str | None) -> str:
        """The model that is meant, after a first look at the server."""
        try:
            listed = self.connection.get(f"{self.connection.url}/models")
            known = model_names(listed)
        except ServerUnreachableError as error:
            raise ValueError(f"url: {error}; start the server, or correct the address") from error
        except RequestRefusedError as error:
            if error.status in (401, 403):
                raise
            hint = (
                ""
                if self.connection.url != self.connection.root
                else f"; most servers have their API at {self.connection.url}/v1"
            )
            raise ValueError(
                f"url: {self.connection.url} is no OpenAI-compatible server ({error}){hint}"
            ) from error
        except ValueError as error:
            raise ValueError(
                f"url: {self.connection.url}/models lists no models; is this an OpenAI-compatible server?"
            ) from error
        if name is None and len(known) == 1:
            return known[0]
        if name is None or name not in known:
            wrong = (
                "say which model"
                if name is None
                else f"there is no model '{name}' at {self.connection.url}"
            )
            raise ValueError(f"name: {wrong}; {closest(name or '', known)}")
        return name

    def _found_way(self) -> Way:
        """How this server says log-probabilities of given text: the first endpoint that does.

        What it answered another time is in the log: another answer now is another model's.
        """
        for way in WAYS:
            question = self._questions(way, [1], 1)[0]
            try:
                answer = self.connection.post(question.address, question.body)
                ((ids, values),) = positions(way, answer, 1, 1)
            except RequestRefusedError as error:
                if error.status in (401, 403):
                    raise
            except ValueError:
                pass
            else:
                key = question_key("first", {"model": self.name} | question.body)
                before = self._logged(key, FIRST)
                if before is None:
                    self.log.put(key, [ids, values], NOTE, replace=True)
                elif before[0] != ids or abs(before[1][0] - values[0]) > 0.05:
                    raise ValueError(
                        f"log: {self.log.path} has answers of another model than '{self.name}' at the server now; take another file"
                    )
                self._way = way
                return way
        raise ValueError(
            f"{self.connection.url} gives no log-probabilities of given text, as vLLM (prompt_logprobs), SGLang (/generate) and llama.cpp "
            "(/completion) do: it cannot say 'top'. Learn from its texts instead: instil generate"
        )

    def _questions(self, way: Way, ids: Sequence[int], size: int) -> list[Question]:
        return way.ask(self.connection.root, self.connection.url, self.name, ids, size)

    def _each(
        self, answered: Callable[[One], Made], questions: Iterable[One]
    ) -> Iterator[tuple[int, Made]]:
        """Some at a time; what is under way when one fails is still waited for, so that its answer is kept.

        An interrupt waits one second for them, and then closes their connections.
        """
        self.connection.stopped.clear()
        pool = futures.ThreadPoolExecutor(self.concurrency)
        under_way: dict[futures.Future[Made], int] = {}
        try:
            for number, question in enumerate(questions):
                under_way[pool.submit(answered, question)] = number
            for done in futures.as_completed(under_way):
                yield under_way[done], done.result()
            pool.shutdown()
        except BaseException as error:
            self.connection.stopped.set()  # nobody begins another attempt
            pool.shutdown(wait=False, cancel_futures=True)
            self._end(under_way, isinstance(error, Exception))
            raise

    def _end(self, under_way: Iterable[futures.Future[Made]], in_peace: bool) -> None:
        """Wait for the running requests: as long as they take, or one second and no longer."""
        running = [future for future in under_way if future.running()]
        try:
            futures.wait(running, timeout=None if in_peace else GRACE)
        finally:
            self.connection.cut()
            futures.wait(running)

    def _answer(
        self, question: Question, read: Callable[[Any], Any], schema: TypeAdapter[Any]
    ) -> Any:
        """What ``read`` makes of the answer: from the log, from whoever asks the same just now, or from the server."""
        key = question_key(
            question.address.removeprefix(self.connection.root),
            {"model": self.name} | question.body,
        )
        if (logged := self._logged(key, schema)) is not None:
            return logged
        with self.budget.claims.question(key, self.connection.stopped):
            if (logged := self._logged(key, schema)) is not None:
                return logged
            return self._asked(key, question, read)

    def _logged(self, key: str, schema: TypeAdapter[Any]) -> Any:
        """The answer in the log; None where there is none, or one that another version could not use."""
        try:
            logged = self.log.get(key)
            return None if logged is None else schema.validate_python(logged)
        except ValidationError:
            return None

    def _asked(self, key: str, question: Question, read: Callable[[Any], Any]) -> Any:
        with self.budget.spending(question.tokens):
            answer = self.connection.post(question.address, question.body)
            used = used_tokens(answer) if isinstance(answer, dict) else None
            # Whoever does not say what an answer took is counted with the most that it can be.
            tokens = question.tokens if used is None else used
            try:
                if not isinstance(answer, dict):
                    raise ValueError(
                        f"{question.address} answered a {type(answer).__name__}, not an object"
                    )
                result = read(answer)
            except ValueError:
                # It is of no use, but it was answered and counts.
                self.log.put(
                    question_key("useless", {"key": key, "of": time.time_ns()}), None, tokens
                )
                raise
            self.log.put(key, result, tokens, replace=True)
            if used is None and self.budget.tokens is not None:
                raise ValueError(
                    "token_budget: this server does not say how many tokens it used; set request_budget instead"
                )
            return result


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
