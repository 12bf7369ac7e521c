"""Reading of texts token by token, with the model's cache where that gives the model's own logits."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs, first_tensor, to_float32

ForwardFunction = Callable[[Batch], Outputs]
"""A net or a teacher: outputs of a batch."""
TEXT_KEYS = ("input_ids", "attention_mask", "valid", "label", "token", "log_probability", "bytes")
"""Keys of a batch that describe the text of its rows."""
CACHE_WORKS = "_instil_cache_works"
"""Attribute of a net that keeps the result of ``cache_works``."""
TESTED_TOKENS = 16
"""Tokens of the row on which a cache is tested."""


class CachedDecoder:
    """Logits of the next token for rows of different lengths, by one net.

    Prompts are padded on the left, as ``generate`` of transformers does: padding between a prompt and its
    continuation would enter sliding windows and recurrent states. Nets whose cache does not give the logits of
    a plain forward read the whole rows again for each token.

    Args:
        ask: the net.
        batch: rows with their prompts; keys that do not describe the text are passed on.
        prompt_length: (N,), at least 1.
        uses_cache: whether to read with the cache; None tests it, once for each net.
    """

    def __init__(
        self,
        ask: ForwardFunction,
        batch: Batch,
        prompt_length: Tensor,
        uses_cache: bool | None = None,
    ):
        self.ask = ask
        self.other_keys = {key: value for key, value in batch.items() if key not in TEXT_KEYS}
        self.uses_cache = cache_works(ask, batch) if uses_cache is None else uses_cache
        self.cache: object = None
        # All but the last token of each prompt: the last one is the input of the first step.
        longest = int(prompt_length.max()) - 1
        column = torch.arange(longest, device=prompt_length.device)[None]
        position = column - (longest - (prompt_length[:, None] - 1))
        self.mask = (position >= 0).long()
        if longest and self.uses_cache:
            position = position.clamp_min(0)
            self._read(batch["input_ids"].gather(1, position), position)

    def __call__(self, ids: Tensor, last: Tensor) -> Tensor:
        """Logits (N, V) of the token after place ``last`` (N,), the next one in each row of ``ids`` (N, T)."""
        if not self.uses_cache:
            return self.recompute(ids, last)
        self.mask = torch.cat([self.mask, torch.ones_like(last[:, None])], 1)
        logits: Tensor = self._read(ids.gather(1, last[:, None]), last[:, None])["logits"][:, -1]
        return logits

    def recompute(self, ids: Tensor, last: Tensor) -> Tensor:
        """The same logits from a plain forward of the rows up to ``last``; padding behind them is not seen."""
        place = torch.arange(int(last.max()) + 1, device=last.device)[None]
        mask = (place <= last[:, None]).long()
        rows = {"input_ids": ids[:, : mask.shape[1]], "attention_mask": mask}
        logits: Tensor = self.ask(rows | self.other_keys)["logits"]
        return logits[torch.arange(len(last), device=last.device), last]

    def _read(self, ids: Tensor, position: Tensor) -> Outputs:
        rows = {
            "input_ids": ids,
            "attention_mask": self.mask,
            "position_ids": position,
            "past": self.cache,
        }
        outputs = self.ask(rows | self.other_keys)
        if "past" not in outputs:
            raise NoCacheError
        self.cache = outputs["past"]
        return outputs


class NoCacheError(Exception):
    """Raised where a net returns no cache."""


@torch.no_grad()
def cache_works(ask: ForwardFunction, batch: Batch) -> bool:
    """Test whether a net that reads padded prompts with its cache gives the logits of a plain forward.

    The test reads the first tokens of one row as three prompts of different lengths beside each other, of
    which the shortest is a single token, so that all it reads with the others is padding. It runs once for
    each net. A warning says why a cache is not used.

    Args:
        ask: a net or a teacher.
        batch: rows of text, of which the longest is used.

    Returns:
        False as well where the net has no cache, or no row has three tokens.
    """
    verdicts = vars(ask) if isinstance(ask, nn.Module) else {}
    if CACHE_WORKS not in verdicts:
        lengths = batch["attention_mask"].sum(1)
        row = int(lengths.argmax())
        length = min(TESTED_TOKENS, int(lengths[row]))
        if length < 3:
            return False
        verdicts[CACHE_WORKS] = _tested_cache(
            ask, index_batch(batch, lengths.argmax()[None].expand(3)), length
        )
    works: bool = verdicts[CACHE_WORKS]
    return works


def _tested_cache(ask: ForwardFunction, batch: Batch, length: int) -> bool:
    ids = batch["input_ids"][:, :length]
    prompt_length = torch.tensor([1, length // 2, length - 1], device=ids.device)
    reason = "its cached logits differ from those of a plain forward"
    try:
        reader = CachedDecoder(ask, batch | {"input_ids": ids}, prompt_length, uses_cache=True)
        for last in (prompt_length - 1, prompt_length):
            if not _is_close(reader(ids, last), reader.recompute(ids, last), ask):
                break
        else:
            return True
    except NoCacheError:
        return False
    except Exception as error:  # the code of somebody else's model
        reason = f"its cache fails ({type(error).__name__}: {error})"
    net = getattr(ask, "net", ask)
    name = type(getattr(net, "model", net)).__name__
    warnings.warn(
        f"{name}: {reason}. Texts are written without a cache, which is slower", stacklevel=2
    )
    return False


def _is_close(left: Tensor, right: Tensor, ask: ForwardFunction) -> bool:
    """Whether logits differ by the rounding of two ways to compute them, in the net's own precision."""
    dtypes = [left.dtype]
    if isinstance(ask, nn.Module):
        dtypes += [weight.dtype for weight in ask.parameters() if weight.is_floating_point()][:1]
    if torch.is_autocast_enabled(left.device.type):
        dtypes.append(torch.get_autocast_dtype(left.device.type))
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    left, right = to_float32(left), to_float32(right)
    error = (left - right).square().mean().sqrt()
    return bool(error <= eps**0.5 * right.square().mean().sqrt())


def index_batch(batch: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch; values that have no rows stay as they are."""
    size = len(first_tensor(batch))
    return {
        key: value[rows]
        if isinstance(value, Tensor) and value.ndim and len(value) == size
        else value
        for key, value in batch.items()
    }
