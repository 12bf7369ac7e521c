"""Model and endpoints of a server."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from instil.cards import suggestion
from instil.remote.answers import PROBE, model_names
from instil.remote.connection import Connection, RequestRefusedError, ServerUnreachableError
from instil.remote.log import NOTE, Log, question_key
from instil.remote.log_probs import ENDPOINTS, Endpoint, Position, read_positions

MAX_DIFFERENCE = 0.05
"""Largest difference of a log-probability between two runs of one model."""


def find_model(connection: Connection, name: str | None) -> str:
    """Return the name of the model to use.

    Args:
        connection: connection to the server.
        name: name of the model; None: the only one of the server.

    Raises:
        ValueError: if there is no such model, no server, or a server of another kind.
        RequestRefusedError: if the server requires another key.
    """
    names = _list_models(connection)
    if name is None and len(names) == 1:
        return names[0]
    if name is not None and name in names:
        return name
    problem = "the server has several models. Set one"
    if name is not None:
        problem = f"{connection.url} has no model '{name}'"
    raise ValueError(f"name: {problem}.{suggestion(name or '', names)}")


def _list_models(connection: Connection) -> list[str]:
    url = connection.url
    try:
        return model_names(connection.get(f"{url}/models"))
    except ServerUnreachableError as error:
        raise ValueError(f"url: {error}. Start the server, or correct the address") from error
    except RequestRefusedError as error:
        if error.status in (401, 403):
            raise
        hint = f"; most servers have their API at {url}/v1" if url == connection.root else ""
        raise ValueError(
            f"url: {url} is not an OpenAI-compatible server ({error}){hint}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"url: {url}/models lists no models. Expected an OpenAI-compatible server"
        ) from error


def find_endpoint(connection: Connection, model: str, log: Log) -> Endpoint:
    """Return the first endpoint of the server that returns log-probabilities of a text.

    Args:
        connection: connection to the server.
        model: name of the model.
        log: log of the responses; the response to a probe identifies the model.

    Raises:
        ValueError: if no endpoint returns them, or if the log is that of another model.
        RequestRefusedError: if the server requires another key.
    """
    for endpoint in ENDPOINTS:
        question = endpoint.questions(connection.root, connection.url, model, [1], 1)[0]
        try:
            response = connection.post(question.address, question.body)
            (probe,) = read_positions(endpoint, response, 1, 1)
        except RequestRefusedError as error:
            if error.status in (401, 403):
                raise
        except ValueError:
            pass
        else:
            _check_same_model(
                log, question_key("first", {"model": model} | question.body), probe, model
            )
            return endpoint
    raise ValueError(
        f"{connection.url} returns no log-probabilities of a text, as vLLM (prompt_logprobs), "
        "SGLang (/generate) and llama.cpp (/completion) do, so the role 'top' is not available. "
        "Use the completions of the model instead: instil generate"
    )


def _check_same_model(log: Log, key: str, probe: Position, model: str) -> None:
    """Compare the response to the probe with the logged one: another model differs."""
    ids, log_probs = probe
    logged = _logged_probe(log, key)
    if logged is None:
        log.put(key, [ids, log_probs], NOTE, replace=True)
    elif logged[0] != ids or abs(logged[1][0] - log_probs[0]) > MAX_DIFFERENCE:
        raise ValueError(
            f"log: {log.path} has responses of another model than '{model}' at the server now. "
            "Set another file"
        )


def _logged_probe(log: Log, key: str) -> Any:
    try:
        logged = log.get(key)
        return None if logged is None else PROBE.validate_python(logged)
    except ValidationError:
        return None
