"""One request over HTTP that ends in time: with a deadline for the whole answer, and a bound on its size."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MAX_BYTES = 2**28
"""Bytes of an answer, after decompression too; 20 log-probabilities of 100,000 positions take fewer."""
BLOCK_BYTES = 2**16
_thread = threading.local()


class HttpResponse(NamedTuple):
    """Status, headers and body of an answer."""

    status: int
    headers: Any
    data: bytes


class ResponseTooLargeError(ValueError):
    """An answer of more than ``MAX_BYTES`` bytes."""


class DecodingError(ValueError):
    """A body that is not compressed as its header says."""


class Exchange:
    """A request that another thread can end by closing its connection."""

    def __init__(self) -> None:
        self.is_cut = False
        self._connection: Any = None
        self._socket: Any = None
        self._lock = threading.Lock()

    def uses(self, connection: Any) -> None:
        """Note the connection that the request is sent over, and its socket where there is one."""
        with self._lock:
            self._connection = connection
            # Of an answer that ends with its connection, only the socket is left to be closed.
            self._socket = getattr(connection, "sock", None) or self._socket

    def cut(self) -> None:
        """Close the connection, so that whoever reads from it stops at once."""
        with self._lock:
            self.is_cut = True
            sock = getattr(self._connection, "sock", None) or self._socket
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """The connection belongs to others from here on."""
        with self._lock:
            self._connection = self._socket = None


class Exchanges:
    """The requests that are under way, over one pool of connections."""

    def __init__(self) -> None:
        self._under_way: set[Exchange] = set()
        self._lock = threading.Lock()
        self._pool: Any = None

    def cut(self) -> None:
        """End all of them."""
        with self._lock:
            under_way = list(self._under_way)
        for exchange in under_way:
            exchange.cut()

    def send(
        self,
        method: str,
        address: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> HttpResponse:
        """Send a request and read the whole answer.

        Args:
            method: ``GET`` or ``POST``.
            address: the URL.
            body: content of the request.
            headers: its headers.
            timeout: seconds until the last byte of the answer must be there.

        Returns:
            The answer, decompressed.

        Raises:
            TimeoutError: if the answer is not whole in time, or the request was cut.
            TooLarge: if it is longer than ``MAX_BYTES``.
            Undecodable: if its compression is damaged, or none that was asked for.
            urllib3.exceptions.HTTPError: if the connection breaks.
        """
        errors = urllib3().exceptions
        with self._watched(timeout) as exchange:
            try:
                answer = self._sent(method, address, body, headers, timeout)
            except errors.HTTPError as error:
                if exchange.is_cut:
                    raise TimeoutError from error
                raise
            if exchange.is_cut:  # a body that ends where the connection does looks whole
                raise TimeoutError
            return answer

    def _sent(
        self,
        method: str,
        address: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> HttpResponse:
        if self._pool is None:
            self._pool = urllib3().PoolManager(maxsize=64)
            self._pool.pool_classes_by_scheme = _watched_pools()
        response = self._pool.request(
            method,
            address,
            body=body,
            headers=dict(headers),
            timeout=urllib3().Timeout(total=timeout),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        is_whole = False
        try:
            data = _body(response)
            is_whole = True
            return HttpResponse(response.status, response.headers, data)
        finally:
            if is_whole:
                response.release_conn()
            else:
                response.close()

    @contextlib.contextmanager
    def _watched(self, timeout: float) -> Iterator[Exchange]:
        """An exchange for this thread's request, which ends with its time."""
        exchange = Exchange()
        timer = threading.Timer(timeout, exchange.cut)
        timer.daemon = True
        with self._lock:
            self._under_way.add(exchange)
        _thread.exchange = exchange
        timer.start()
        try:
            yield exchange
        finally:
            timer.cancel()
            exchange.finish()
            _thread.exchange = None
            with self._lock:
                self._under_way.remove(exchange)


def urllib3() -> Any:
    """The library, with an ImportError that says how to install it."""
    try:
        import urllib3
    except ImportError as error:
        raise ImportError(
            'teachers behind a server need urllib3: pip install "instil[remote]"'
        ) from error
    return urllib3


@functools.cache
def _watched_pools() -> dict[str, Any]:
    """Connection pools whose connections tell the exchange of the thread which one it uses."""
    library = urllib3()

    def watched(pool: Any) -> Any:
        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def request(self, *arguments: Any, **options: Any) -> None:
                exchange = getattr(_thread, "exchange", None)
                if exchange is not None:
                    exchange.uses(self)
                super().request(*arguments, **options)
                if exchange is not None:
                    exchange.uses(self)

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

    return {
        "http": watched(library.HTTPConnectionPool),
        "https": watched(library.HTTPSConnectionPool),
    }


def _body(response: Any) -> bytes:
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise DecodingError(f"the encoding {encoding[:20]!r}, which was not asked for")
    inflater = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 16)
    data = bytearray()
    while block := response.read(BLOCK_BYTES, decode_content=False):
        try:
            data += block if inflater is None else inflater.decompress(block, MAX_BYTES + 1)
        except zlib.error as error:
            raise DecodingError("a damaged gzip stream") from error
        if len(data) > MAX_BYTES:
            raise ResponseTooLargeError(f"the answer is longer than {MAX_BYTES // 2**20} MiB")
    if inflater is not None and data and not inflater.eof:
        raise DecodingError("a gzip stream that is cut off")
    return bytes(data)
