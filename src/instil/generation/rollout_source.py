"""Sources of texts: a protocol, and a copy of the student."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Protocol

import torch

from instil.core import Batch, Net, first_tensor
from instil.items.batch import to_device

GenerateText = Callable[[Net, Batch], Batch]
"""Maps a network and a batch to the batch with the network's text."""


class RolloutSource(Protocol):
    """Generator of the student's texts, with weights that it receives from time to time."""

    def push(self, student: Net, version: int) -> None:
        """Receive the weights of the student. No text is being generated meanwhile.

        Args:
            student: the student.
            version: number of optimizer steps that the weights have had.
        """

    def generate(self, batch: Batch) -> Batch:
        """Generate a text after each prompt; called in a thread of its own.

        Args:
            batch: rows of tokens.

        Returns:
            The batch of ``instil.generation.rollout.generate_with``.
        """

    def close(self) -> None:
        """Release what the source holds, at the end of the training."""


class StudentCopy:
    """Copy of the student as the source of texts.

    Frozen weights are shared with the student if both are on one device.

    Args:
        student: the student; the copy has its weights of now.
        generate_text: generates the texts of a batch.
        device: device of the copy; None: that of the student.
    """

    def __init__(self, student: Net, generate_text: GenerateText, device: str | None = None):
        frozen = {} if device else {id(p): p for p in student.parameters() if not p.requires_grad}
        self.net = copy.deepcopy(student, frozen).eval().requires_grad_(False)
        self.device = None if device is None else torch.device(device)
        if self.device is not None:
            self.net.to(self.device)
        self.generate_text = generate_text

    @torch.no_grad()
    def push(self, student: Net, version: int) -> None:
        """Copy the trained weights and the buffers of the student."""
        pairs = zip(self.net.parameters(), student.parameters(), strict=True)
        for own, current in pairs:
            if current.requires_grad:
                own.copy_(current)
        for copied, buffer in zip(self.net.buffers(), student.buffers(), strict=True):
            copied.copy_(buffer)

    def generate(self, batch: Batch) -> Batch:
        """Generate texts on the device of the copy and return them on that of the batch."""
        if self.device is None:
            return self.generate_text(self.net, batch)
        text = self.generate_text(self.net, to_device(batch, self.device))
        return to_device(text, first_tensor(batch).device)

    def close(self) -> None:
        """Do nothing: the copy is released with the scheme."""
