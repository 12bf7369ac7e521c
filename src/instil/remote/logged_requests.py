"""Requests whose results are logged, so that no question is sent twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from instil.remote.answers import used_tokens
from instil.remote.budget import Budget
from instil.remote.connection import Connection
from instil.remote.log import Log, question_key
from instil.remote.log_probs import Question


class LoggedRequests:
    """Requests to one model within a budget.

    Args:
        model: name of the model.
        connection: connection to its server.
        log: log of the results.
        budget: limit on requests and tokens.
    """

    def __init__(self, model: str, connection: Connection, log: Log, budget: Budget):
        self.model = model
        self.connection = connection
        self.log = log
        self.budget = budget

    def result(
        self, question: Question, read: Callable[[Any], Any], schema: TypeAdapter[Any]
    ) -> Any:
        """Return the result of a question: from the log, from another user of it, or new.

        Args:
            question: address and body of the request.
            read: response -> result.
            schema: schema of results in the log.

        Raises:
            ValueError: if the response cannot be read.
        """
        key = question_key(
            question.address.removeprefix(self.connection.root),
            {"model": self.model} | question.body,
        )
        if (logged := self._logged(key, schema)) is not None:
            return logged
        with self.budget.claims.question(key, self.connection.stopped):
            # Whoever held the claim before may have logged the response by now.
            if (logged := self._logged(key, schema)) is not None:
                return logged
            return self._request(key, question, read)

    def _logged(self, key: str, schema: TypeAdapter[Any]) -> Any:
        """Return the result in the log; None if there is none in the format of this version."""
        try:
            logged = self.log.get(key)
            return None if logged is None else schema.validate_python(logged)
        except ValidationError:
            return None

    def _request(self, key: str, question: Question, read: Callable[[Any], Any]) -> Any:
        with self.budget.reserve(question.tokens):
            response = self.connection.post(question.address, question.body)
            used = used_tokens(response) if isinstance(response, dict) else None
            # Without a number from the server, the maximum counts.
            tokens = question.tokens if used is None else used
            try:
                if not isinstance(response, dict):
                    raise ValueError(
                        f"{question.address}: wrong type of response. Expected an object, got "
                        f"{type(response).__name__}"
                    )
                result = read(response)
            except ValueError:
                # The response is of no use, but it was paid for and counts.
                unusable = question_key("useless", {"key": key, "of": time.time_ns()})
                self.log.put(unusable, None, tokens)
                raise
            self.log.put(key, result, tokens, replace=True)
            if used is None and self.budget.tokens is not None:
                raise ValueError(
                    "token_budget: the responses of this server have no number of used tokens. "
                    "Set request_budget instead"
                )
            return result
