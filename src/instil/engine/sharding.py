"""Sharding of weights over processes (FSDP2), and gathering of full weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from instil.capabilities import RestrictsSharding
from instil.core import Net, Objectives, Scheme
from instil.engine.blocks import parts_of_scheme, repeated_blocks
from instil.engine.cpu_offload import offloaded_blocks, undo_offload
from instil.engine.optimization import Optimization
from instil.engine.processes import broadcast_tensors, max_over_ranks, world_size
from instil.engine.shard_precision import precision_policy, stored_dtypes
from instil.generation.lockstep import set_agreement


def check_shardable(scheme: Scheme, optimizations: Iterable[Optimization] = ()) -> None:
    """Check that a scheme can be sharded.

    Args:
        scheme: scheme with its objectives.
        optimizations: optimizers of its learners.

    Raises:
        ValueError: if the scheme or one of its objectives uses weights outside a forward pass, or
            an optimizer cannot update shards.
    """
    remedy = "set train.shard: false"
    for optimization in optimizations:
        if not optimization.has_sharded_states:
            raise ValueError(
                f"optimizer: {optimization.type} cannot update sharded weights. Use adamw, whose "
                f"states are divided over the processes, or {remedy}"
            )
    _check_obstacle(type(scheme).__name__, scheme, remedy)
    for part in scheme.modules():
        if not isinstance(part, Objectives):
            continue
        if inside := part.requires_double_backward():
            raise ValueError(
                f"{inside[0]} takes gradients inside the student's graph, which a sharded net does "
                f"not have; {remedy}"
            )
        for name, objective in part.named():
            _check_obstacle(f"objectives.{name}", objective, remedy)
        if part.balance is not None:
            _check_obstacle("balance", part.balance, remedy)


def _check_obstacle(name: str, method: nn.Module, remedy: str) -> None:
    """Raise ValueError with the reason if a method cannot train sharded nets."""
    obstacle = method.sharding_obstacle() if isinstance(method, RestrictsSharding) else None
    if obstacle is not None:
        raise ValueError(f"{name} {obstacle}, which sharding does not support; {remedy}")


def shard(
    scheme: Scheme,
    device: torch.device,
    group: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Shard the weights of every part of a scheme over processes, in place.

    Weights come to the device block by block, so that no process has all of them there at a time.
    Those of the first process are sharded. The shards of offloaded blocks go back to the CPU.

    Args:
        scheme: prepared scheme that ``check_shardable`` accepts.
        device: device of this process.
        group: number of consecutive processes that share one copy of the weights (HSDP). None: all.
        dtype: type of computations, see ``shard_precision``.

    Raises:
        ValueError: if the processes cannot be split into groups of this size.
    """
    # Taps return views, which the package never changes in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = _mesh(device, world_size() if group is None else group)
    dtypes = stored_dtypes(scheme, dtype)
    parts = list(parts_of_scheme(scheme))
    # FSDP2 copies the shards of such a block to the device itself.
    on_cpu: set[nn.Module] = set(offloaded_blocks(scheme))
    undo_offload(on_cpu)
    _receive([*scheme.parameters(recurse=False), *scheme.buffers()], device, dtypes)
    for part in parts:
        set_agreement(part, lambda flag: bool(max_over_ranks(int(flag), device)))
        policy = precision_policy(part, dtype)
        for unit in _units(part):
            whole = [p for p in unit.parameters() if not isinstance(p, DTensor)]
            _receive(whole, device, dtypes)
            offload = OffloadPolicy()
            if unit in on_cpu:
                offload = CPUOffloadPolicy(pin_memory=device.type == "cuda")
            fully_shard(unit, mesh=mesh, mp_policy=policy, offload_policy=offload)


def _mesh(device: torch.device, group: int) -> DeviceMesh:
    """Mesh of all processes; with several groups its first dimension counts the copies."""
    size = world_size()
    if size % group:
        raise ValueError(
            f"train.shard_group: the processes cannot be split into groups of this size. Expected "
            f"a divisor of {size}, the number of processes, got {group}"
        )
    if group == size:
        return init_device_mesh(device.type, (size,))
    names = ("replicate", "shard")
    return init_device_mesh(device.type, (size // group, group), mesh_dim_names=names)


def set_gradient_sync(modules: Iterator[nn.Module], last: bool) -> None:
    """Synchronize gradients after the last micro-batch only.

    Args:
        modules: modules of all learners.
        last: whether the next micro-batch is the last one.
    """
    for module in modules:
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.set_requires_gradient_sync(last, recurse=False)


def reshard(scheme: Scheme) -> None:
    """Free the full weights that a forward pass has gathered.

    Args:
        scheme: sharded scheme.
    """
    for part in scheme.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def gather_full(state: Any) -> Any:
    """Return a nested state with full tensors in place of sharded ones. Call it on every rank.

    Args:
        state: nested state, such as that of an optimizer.
    """
    return tree_map(lambda leaf: leaf.full_tensor() if isinstance(leaf, DTensor) else leaf, state)


def shard_like(tensor: Tensor, reference: Tensor) -> Tensor:
    """Shard a full tensor in the way of another one.

    Args:
        tensor: full tensor.
        reference: sharded or plain tensor.
    """
    if not isinstance(reference, DTensor):
        return tensor
    return distribute_tensor(tensor, reference.device_mesh, reference.placements)


class Blueprint:
    """Copy of a scheme without values, which receives the weights of the trained sharded scheme.

    A sharded net can be neither copied nor exported, and its shards cannot be written to one file.

    Args:
        scheme: prepared scheme, before sharding.
    """

    def __init__(self, scheme: Scheme):
        state = scheme.state_dict(keep_vars=True)
        # Tensors of the state become empty and take no memory; others, such as position tables, are
        # copied.
        memo: dict[int, Any] = {}
        for tensor in (*state.values(), *scheme.parameters()):
            if id(tensor) not in memo:
                memo[id(tensor)] = _empty(tensor)
        self._scheme = copy.deepcopy(scheme, memo)

    def fill(self, trained: Scheme, fixed: tuple[str, ...], device: torch.device) -> Scheme:
        """Return the scheme with full weights. Call it on every rank.

        Args:
            trained: sharded scheme.
            fixed: name prefixes of the tensors that stay empty: teachers that do not change.
            device: device of the weights.
        """
        state = trained.state_dict(keep_vars=True)
        done: set[int] = set()
        for name, empty in self._scheme.state_dict(keep_vars=True).items():
            if name.startswith(fixed) or id(empty) in done:
                continue
            done.add(id(empty))
            # One tensor at a time: all full weights together may not fit in memory.
            value = gather_full(state[name].detach()).to(device, copy=True)
            if isinstance(empty, nn.Parameter):
                value = nn.Parameter(value, empty.requires_grad)
            # Every reference to the tensor sees the values, so tied weights stay tied.
            torch.utils.swap_tensors(empty, value)  # type: ignore[no-untyped-call]
        return self._scheme


def _empty(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """Modules that are sharded as one: each repeated block, then all (embeddings, head)."""
    for part in module.modules():
        if isinstance(part, Net):
            # A forward pass that ends early would leave its weights unsharded.
            part.early_stop = False
    # An objective may call a part of its adapter directly, which would not gather the weights.
    if not isinstance(module, Objectives):
        yield from list(repeated_blocks(module))
    if any(True for _ in module.parameters()):
        yield module


def _receive(
    tensors: Sequence[Tensor], device: torch.device, dtypes: dict[Any, torch.dtype]
) -> None:
    """Replace tensors by those of the first process, on a device and in other types.

    Args:
        tensors: parameters and buffers.
        device: device of this process.
        dtypes: type of each parameter. Those of ``tensors`` are removed, because a reference would
            keep the whole parameter in memory after it is sharded.
    """
    for tensor in tensors:
        dtype = dtypes.pop(tensor, tensor.dtype)
        # A copy: weights may be views of a file, which every process of a machine shares.
        tensor.data = tensor.data.to(device, dtype, copy=True)
    broadcast_tensors(tensors)
