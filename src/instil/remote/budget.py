"""Limits on the number of requests and tokens."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from instil.remote.claims import Claims
from instil.remote.log import Log


class BudgetExceededError(ValueError):
    """The next request could exceed the budget."""


class Budget:
    """Limit on requests and tokens, which all users of a log share.

    A request starts only if its longest response still fits in the budget together with all
    requests in progress, in this process and in others that use the log. Until then it waits.

    Args:
        log: responses so far; all of them count.
        requests: maximum number of requests; None: no limit.
        tokens: maximum number of tokens; None: no limit.
        stopped: event that ends the wait.
    """

    def __init__(
        self,
        log: Log,
        requests: int | None = None,
        tokens: int | None = None,
        stopped: threading.Event | None = None,
    ):
        self.log = log
        self.requests = requests
        self.tokens = tokens
        self.claims = Claims.of(log.path)
        self.stopped = stopped or threading.Event()

    @contextlib.contextmanager
    def reserve(self, tokens: int) -> Iterator[None]:
        """Reserve one request for the duration of a ``with`` block.

        Args:
            tokens: maximum number of tokens of the request.

        Raises:
            BudgetExceededError: if the request does not fit in the budget.
        """

        def reason_against(requests_in_progress: int, tokens_in_progress: int) -> str:
            return self._reason_against(tokens, requests_in_progress, tokens_in_progress)

        if reason := self.claims.reserve(tokens, reason_against, self.stopped):
            raise BudgetExceededError(reason)
        try:
            yield
        finally:
            self.claims.release(tokens)

    def _reason_against(
        self, tokens: int, requests_in_progress: int, tokens_in_progress: int
    ) -> str:
        """Return why one more request does not fit, or an empty string."""
        self.log.refresh()
        storage = "set a log file to keep the responses"
        if self.log.path:
            storage = f"all responses are in {self.log.path}"
        remedy = f"raise the limit and start again: {storage}"
        num_requests, num_tokens = self.log.requests, self.log.tokens
        if self.requests is not None and num_requests + requests_in_progress + 1 > self.requests:
            return f"request_budget: {num_requests} of {self.requests} requests are spent; {remedy}"
        if self.tokens is not None and num_tokens + tokens_in_progress + tokens > self.tokens:
            return (
                f"token_budget: {num_tokens} of {self.tokens} tokens are spent, and the next "
                f"request may take {tokens}; {remedy}"
            )
        return ""
