"""Options of texts that are generated while the student trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt
from typing_extensions import Doc


@dataclass(frozen=True)
class Rollouts:
    """Source and age of the weights that generate the student's texts.

    With ``staleness`` 0 and no ``server``, a step generates its texts itself.

    Raises:
        ValueError: for options that contradict each other.

    Example:
        >>> Rollouts(staleness=4).steps_between_pushes
        4
    """

    staleness: Annotated[
        int,
        Ge(0),
        Doc(
            "largest number of optimizer steps between the weights that generate a text and those "
            "that learn from it; 0: texts of the current weights"
        ),
    ] = 0
    push_every: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc(
            "steps between two transfers of the student's weights, at most ``staleness``; null: "
            "equal to ``staleness``"
        ),
    ] = None
    device: Annotated[
        str | None,
        Doc("device of the copy of the student that generates, such as cuda:1; null: the same"),
    ] = None

    server: Annotated[
        Literal["vllm", "sglang", "llama_cpp"] | None,
        Doc("kind of the server that generates; null: a copy of the student"),
    ] = None
    url: Annotated[
        str | None, Doc("address of the server's API, such as http://127.0.0.1:8000/v1")
    ] = None
    folder: Annotated[
        str | None,
        Doc("folder for the student's weights, which the server reads under the same path"),
    ] = None
    command: Annotated[
        list[str] | None,
        Doc(
            "program and arguments that start llama.cpp; {file} stands for the GGUF file of the "
            "student"
        ),
    ] = None
    key: Annotated[str, Doc("environment variable with the API key of the server")] = (
        "INSTIL_REMOTE_KEY"
    )
    concurrency: Annotated[int, Ge(1), Doc("number of parallel requests")] = 8
    timeout: Annotated[
        float, Gt(0), Doc("seconds for one response of the server, or for its start")
    ] = 600.0

    def __post_init__(self) -> None:
        self._check_server()
        largest = max(1, self.staleness)
        if self.push_every is not None and self.push_every > largest:
            raise ValueError(
                "push_every: texts would be older than staleness allows. Expected at most "
                f"{largest} (staleness), got {self.push_every}. Leave push_every out"
            )

    def _check_server(self) -> None:
        """Raise ValueError for options that do not fit the kind of source."""
        values = {"url": self.url, "folder": self.folder, "command": self.command}
        for name, value in values.items():
            if self.server is None and value is not None:
                raise ValueError(
                    f"{name}: it belongs to a server. Expected server: vllm, sglang or llama_cpp"
                )
        if self.server is None:
            return
        for name in ("url", "folder"):
            if values[name] is None:
                raise ValueError(f"{name}: it is missing. Expected one with server: {self.server}")
        if self.device is not None:
            raise ValueError("device: a server has its own device. Leave device out")
        is_restarted = self.server == "llama_cpp"
        has_file = any("{file}" in part for part in self.command or ())
        if is_restarted and not has_file:
            raise ValueError(
                "command: llama.cpp cannot load new weights while it runs. Expected the command "
                "that starts it, such as [llama-server, -m, '{file}', --port, '8080']"
            )
        if not is_restarted and self.command is not None:
            raise ValueError(
                f"command: {self.server} loads new weights while it runs. Start it yourself and "
                "leave command out"
            )

    @property
    def steps_between_pushes(self) -> int:
        """Number of steps between two transfers of the weights."""
        return self.push_every or max(1, self.staleness)

    @property
    def is_immediate(self) -> bool:
        """Whether each step generates its texts with the student itself."""
        return self.staleness == 0 and self.server is None


RolloutOption = Annotated[
    Rollouts, Doc("texts that are generated while the student trains on earlier ones")
]
