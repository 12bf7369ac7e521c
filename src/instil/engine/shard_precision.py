"""Types of sharded weights while they are gathered.

A network of a training in bfloat16 computes with gathered weights in bfloat16: they need half the
bytes, and autocast copies none of them. Its shards, the sum of its gradients over processes and its
optimizer keep the type of the weights, float32. Losses and their adapters compute in float32.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.nn.modules.batchnorm import _NormBase

from instil.core import Net, Scheme, Teacher
from instil.engine.blocks import parts_of_scheme
from instil.engine.state import fixed_teachers


def gathered_dtype(module: nn.Module, dtype: torch.dtype) -> torch.dtype | None:
    """Return the type of the gathered weights of a part of a scheme; None: that of its shards.

    Args:
        module: part of ``parts_of_scheme``.
        dtype: type of computations.
    """
    is_network = isinstance(module, (Net, Teacher))
    # The kernels of BatchNorm need weights of the type of the statistics.
    has_statistics = any(isinstance(part, _NormBase) for part in module.modules())
    if dtype == torch.float32 or not is_network or has_statistics:
        return None
    return dtype


def gathered_dtypes(scheme: Scheme, dtype: torch.dtype) -> dict[nn.Parameter, torch.dtype]:
    """Return the type of each weight of a scheme while it is gathered.

    Args:
        scheme: prepared scheme, before sharding.
        dtype: type of computations.
    """
    dtypes: dict[nn.Parameter, torch.dtype] = {}
    for part in parts_of_scheme(scheme):
        gathered = gathered_dtype(part, dtype)
        for parameter in part.parameters():
            if gathered is not None and parameter.is_floating_point():
                dtypes.setdefault(parameter, gathered)
            else:
                dtypes.setdefault(parameter, parameter.dtype)
    return dtypes


def precision_policy(module: nn.Module, dtype: torch.dtype) -> MixedPrecisionPolicy:
    """Return the policy of FSDP2 for a part of a scheme.

    Args:
        module: part of ``parts_of_scheme``.
        dtype: type of computations.
    """
    gathered = gathered_dtype(module, dtype)
    return MixedPrecisionPolicy(
        param_dtype=gathered,
        reduce_dtype=None if gathered is None else torch.float32,
        # Autocast converts the inputs of the operations that need it. A network may also read times
        # or labels, which half precision would round.
        cast_forward_inputs=False,
    )


def stored_dtypes(scheme: Scheme, dtype: torch.dtype) -> dict[nn.Parameter, torch.dtype]:
    """Return the type of the shards of each weight of a scheme.

    Teachers that do not change are stored in the type of their gathered weights.

    Args:
        scheme: prepared scheme, before sharding.
        dtype: type of computations.
    """
    gathered = gathered_dtypes(scheme, dtype)
    fixed = fixed_parameters(scheme)
    return {
        parameter: gathered[parameter] if parameter in fixed else parameter.dtype
        for parameter in gathered
    }


def fixed_parameters(scheme: Scheme) -> set[nn.Parameter]:
    """Return the weights of the teachers that do not change.

    Args:
        scheme: scheme with its teachers.
    """
    parameters: set[nn.Parameter] = set()
    for name in fixed_teachers(scheme):
        parameters.update(scheme.get_submodule(name.removesuffix(".")).parameters())
    return parameters
