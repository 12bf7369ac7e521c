"""Teachers behind an OpenAI-compatible server: completions and log-probabilities of texts."""

from instil.remote.connection import RequestRefusedError, ServerUnreachableError
from instil.remote.server import Completion, Server

__all__ = ["Completion", "RequestRefusedError", "Server", "ServerUnreachableError"]
