"""Token-by-token decoding, with the model's cache where cached and plain logits agree."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs, first_tensor, to_float32
from instil.generation.eager import eager_context
from instil.generation.lockstep import Lockstep, is_sharded
from instil.roles import IMAGE_TOKENS

ForwardFunction = Callable[[Batch], Outputs]
"""A network or teacher: maps a batch to outputs."""
TEXT_KEYS = ("input_ids", "attention_mask", "valid", "label", "token", "log_probability", "bytes")
"""Keys of a batch that describe the text of its rows."""
CACHE_WORKS = "_instil_cache_works"
"""Attribute of a network with the result of ``cache_works``."""
TESTED_TOKENS = 16
"""Most tokens of the row on which ``cache_works`` tests a cache."""


class CachedDecoder:
    """Logits of the next token of one network, for rows of different lengths.

    Prompts are padded on the left, as in ``generate`` of transformers. Padding between a prompt and
    its continuation would enter sliding windows and recurrent states. A network whose cache does
    not give the logits of a plain forward pass processes the whole rows again for each token.

    Args:
        forward: the network or teacher.
        batch: rows with their prompts; keys that do not describe the text go to the network as they
            are.
        prompt_length: number of prompt tokens (N,), at least 1.
        uses_cache: whether to use the cache. None: test it, once per network.
    """

    def __init__(
        self,
        forward: ForwardFunction,
        batch: Batch,
        prompt_length: Tensor,
        uses_cache: bool | None = None,
    ):
        self.forward = forward
        self.eager = eager_context(forward)
        self.other_keys = {key: value for key, value in batch.items() if key not in TEXT_KEYS}
        self.image_tokens = self.other_keys.pop(IMAGE_TOKENS, None)
        self.uses_cache = cache_works(forward, batch) if uses_cache is None else uses_cache
        self.cache: object = None
        # All but the last token of each prompt: the last one is the input of the first step.
        # Processes of a sharded network all read prompts: one column of padding stands for none.
        longest = max(int(prompt_length.max()) - 1, int(is_sharded(forward)))
        column = torch.arange(longest, device=prompt_length.device)[None]
        # Prompts are padded on the left, so that the next token of every row is the last column.
        position = column - (longest - (prompt_length[:, None] - 1))
        self.mask = (position >= 0).long()
        if longest and self.uses_cache:
            position = position.clamp_min(0)
            # The prompts hold all images; they are in the cache afterwards.
            if self.image_tokens is not None:
                self.other_keys[IMAGE_TOKENS] = self.image_tokens.gather(1, position) * self.mask
            self._read(batch["input_ids"].gather(1, position), position)
            self.other_keys.pop(IMAGE_TOKENS, None)

    def __call__(self, ids: Tensor, last: Tensor) -> Tensor:
        """Logits (N, V) of the token after position ``last`` (N,) in each row of ``ids`` (N, T)."""
        if not self.uses_cache:
            return self.recompute(ids, last)
        # The mask grows with the cache; rows that have ended continue with tokens that are ignored.
        self.mask = torch.cat([self.mask, torch.ones_like(last[:, None])], 1)
        logits: Tensor = self._read(ids.gather(1, last[:, None]), last[:, None])["logits"][:, -1]
        return logits

    def recompute(self, ids: Tensor, last: Tensor) -> Tensor:
        """Compute the same logits by a plain forward pass.

        Args:
            ids: tokens (N, T).
            last: position (N,) of the last token that is used in each row.

        Returns:
            (N, V).
        """
        position = torch.arange(int(last.max()) + 1, device=last.device)[None]
        mask = (position <= last[:, None]).long()
        rows = {"input_ids": ids[:, : mask.shape[1]], "attention_mask": mask}
        if self.image_tokens is not None:
            rows[IMAGE_TOKENS] = self.image_tokens[:, : mask.shape[1]] * mask
        with self.eager():
            logits: Tensor = self.forward(rows | self.other_keys)["logits"]
        return logits[torch.arange(len(last), device=last.device), last]

    def _read(self, ids: Tensor, position: Tensor) -> Outputs:
        rows = {
            "input_ids": ids,
            "attention_mask": self.mask,
            "position_ids": position,
            "past": self.cache,
        }
        with self.eager():
            outputs = self.forward(rows | self.other_keys)
        if "past" not in outputs:
            raise NoCacheError
        self.cache = outputs["past"]
        return outputs


class NoCacheError(Exception):
    """Raised if a network returns no cache."""


@torch.no_grad()
def cache_works(forward: ForwardFunction, batch: Batch) -> bool:
    """Test whether padded prompts give the same logits with the cache as without it.

    The test uses the first tokens of the longest row as three prompts of different lengths. The
    shortest prompt is a single token, so its row starts with padding only. The test runs once per
    network. If the cache fails, a warning gives the reason. All processes of a sharded network
    get the same answer.

    Args:
        forward: a network or teacher.
        batch: rows of text.

    Returns:
        Whether the logits agree. False if the network has no cache or no row has three tokens.
    """
    results = vars(forward) if isinstance(forward, nn.Module) else {}
    if CACHE_WORKS not in results:
        lengths = batch["attention_mask"].sum(1)
        row = int(lengths.argmax())
        first = int(tokens_with_images(batch)[row])
        length = min(first + TESTED_TOKENS, int(lengths[row]))
        lockstep = Lockstep([forward])
        if not lockstep.all(length >= first + 3):
            return False
        # The longest row three times, for prompts of three lengths in one padded batch.
        copies = index_batch(batch, lengths.argmax()[None].expand(3))
        agree = _cached_logits_agree(forward, copies, first, length)
        results[CACHE_WORKS] = lockstep.all(agree)
    works: bool = results[CACHE_WORKS]
    return works


def tokens_with_images(batch: Batch) -> Tensor:
    """Return the number of tokens (N,) up to the last one of an image; 0 without images.

    Args:
        batch: rows of tokens.
    """
    mask = batch["attention_mask"]
    if IMAGE_TOKENS not in batch:
        return torch.zeros(len(mask), dtype=torch.int64, device=mask.device)
    column = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last: Tensor = (column * (batch[IMAGE_TOKENS] > 0)).amax(1)
    return last


def _cached_logits_agree(forward: ForwardFunction, batch: Batch, first: int, length: int) -> bool:
    ids = batch["input_ids"][:, :length]
    # Each prompt has all images of the row.
    middle = first + (length - first) // 2
    prompt_length = torch.tensor([first + 1, middle, length - 1], device=ids.device)
    reason = "its cached logits differ from those of a plain forward"
    try:
        decoder = CachedDecoder(forward, batch | {"input_ids": ids}, prompt_length, uses_cache=True)
        # Two steps: the second one reads a cache that the first one has extended. Both run in any
        # case, because processes of a sharded network need the same number of passes.
        steps = (prompt_length - 1, prompt_length)
        pairs = [(decoder(ids, last), decoder.recompute(ids, last)) for last in steps]
        if all(_is_close(left, right, forward) for left, right in pairs):
            return True
    except NoCacheError:
        return False
    except Exception as error:  # a user's model may raise anything
        reason = f"its cache fails ({type(error).__name__}: {error})"
    net = getattr(forward, "net", forward)
    name = type(getattr(net, "model", net)).__name__
    warnings.warn(
        f"{name}: {reason}. Texts are generated without a cache, which is slower", stacklevel=2
    )
    return False


def _is_close(left: Tensor, right: Tensor, forward: ForwardFunction) -> bool:
    """Whether logits differ by rounding only, in the precision of the network."""
    dtypes = [left.dtype]
    if isinstance(forward, nn.Module):
        weights = (weight for weight in forward.parameters() if weight.is_floating_point())
        dtypes += [weight.dtype for weight in itertools.islice(weights, 1)]
    if torch.is_autocast_enabled(left.device.type):
        dtypes.append(torch.get_autocast_dtype(left.device.type))
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    left, right = to_float32(left), to_float32(right)
    error = (left - right).square().mean().sqrt()
    # Relative to the size of the logits, in the coarsest precision that takes part.
    return bool(error <= eps**0.5 * right.square().mean().sqrt())


def idle_row(batch: Batch) -> Batch:
    """Return the first row of a batch, with no position that counts.

    A process with nothing to compute takes part with it in the passes of a sharded network.

    Args:
        batch: rows with ``valid`` (N, T).
    """
    row = index_batch(batch, torch.zeros(1, dtype=torch.int64, device=batch["valid"].device))
    return row | {"valid": torch.zeros_like(row["valid"])}


def index_batch(batch: Batch, rows: Tensor) -> Batch:
    """Select rows of a batch.

    Args:
        batch: the batch.
        rows: indices (M,), or a mask of the rows.

    Returns:
        The batch with these rows. Values without one entry per row stay as they are.
    """
    size = len(first_tensor(batch))
    part = dict(batch)
    for key, value in batch.items():
        if isinstance(value, Tensor) and value.ndim and len(value) == size:
            part[key] = value[rows]
    return part
