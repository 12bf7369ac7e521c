"""A language model behind an OpenAI-compatible server."""

from __future__ import annotations

import concurrent.futures as futures
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from instil.core import Top, closest
from instil.remote.budget import Budget
from instil.remote.connection import Connection, Refused, Unreachable
from instil.remote.log import NOTE, Log, key_of
from instil.remote.tops import WAYS, Position, Question, Way, positions, top_of, usage

KEY = "INSTIL_REMOTE_KEY"
WHOLE = {"top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""Draw from all tokens: servers have other defaults, such as the 40 likeliest."""

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
    log. ``retries`` and ``timeout`` (seconds) are of one request.

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
        self.budget = Budget(self.log, request_budget, token_budget)
        self._under_way: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
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
    ) -> Iterator[tuple[int, Completion | Refused]]:
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

        def answered(prompt: str) -> Completion | Refused:
            asked = (
                {"prompt": prompt}
                if plain
                else {"messages": [*before, {"role": "user", "content": prompt}]}
            )
            question = Question(
                address, given | asked, len(prompt.encode()) + len((system or "").encode()) + length
            )
            try:
                return Completion(*self._answer(question, _text_of))
            except Refused as refusal:
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
                found += self._answer(question, lambda answer: positions(way, answer, each, size))
            return top_of(found)

        try:
            return [top for _, top in sorted(self._each(answered, rows), key=lambda pair: pair[0])]
        except Refused as error:
            raise ValueError(
                f"{error} (asked for the {size} likeliest tokens after each of up to {max(map(len, rows))})"
            ) from error

    def _found(self, name: str | None) -> str:
        """The model that is meant, after a first look at the server."""
        try:
            listed = self.connection.get(f"{self.connection.url}/models")
            known = [str(one["id"]) for one in listed["data"]]
        except Unreachable as error:
            raise ValueError(f"url: {error}; start the server, or correct the address") from error
        except Refused as error:
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
        except (KeyError, TypeError) as error:
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
            except Refused as error:
                if error.status in (401, 403):
                    raise
            except ValueError:
                pass
            else:
                key = key_of("first", {"model": self.name} | question.body)
                before = self.log.get(key)
                if before is None:
                    self.log.put(key, [ids, values], NOTE)
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
        """Some at a time; what is under way when one fails is still waited for, so that its answer is kept."""
        self.connection.stopped.clear()
        pool = futures.ThreadPoolExecutor(self.concurrency)
        try:
            under_way = {
                pool.submit(answered, question): number for number, question in enumerate(questions)
            }
            for done in futures.as_completed(under_way):
                yield under_way[done], done.result()
        except BaseException:
            self.connection.stopped.set()  # nobody begins another attempt
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _answer(self, question: Question, read: Callable[[Any], Any]) -> Any:
        """What ``read`` makes of the answer: from the log, from whoever asks the same just now, or from the server."""
        key = key_of(
            question.address.removeprefix(self.connection.root),
            {"model": self.name} | question.body,
        )
        while (kept := self.log.get(key)) is None:
            with self._lock:
                other = self._under_way.get(key)
                if other is None and (kept := self.log.get(key)) is None:
                    mine = self._under_way[key] = threading.Event()
            if kept is not None:
                break
            if other is not None:
                other.wait()
                continue
            try:
                return self._asked(key, question, read)
            finally:
                with self._lock:
                    del self._under_way[key]
                mine.set()
        return kept

    def _asked(self, key: str, question: Question, read: Callable[[Any], Any]) -> Any:
        with self.budget.spending(question.tokens):
            answer = self.connection.post(question.address, question.body)
            if not isinstance(answer, dict):
                raise ValueError(
                    f"{question.address} answered a {type(answer).__name__}, not an object"
                )
            tokens = usage(answer)
            if tokens is None and self.budget.tokens is not None:
                raise ValueError(
                    "token_budget: this server does not say how many tokens it used; set request_budget instead"
                )
            made = read(answer)
            self.log.put(key, made, tokens or 0)
            return made


def _text_of(answer: Any) -> tuple[str, str]:
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"the server's answer holds no text: {str(answer)[:200]}") from error
    return text or "", str(choice.get("finish_reason") or "stop")
