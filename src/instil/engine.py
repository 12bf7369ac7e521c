"""Devices, precision, ranks, sharding and exact gradients: the only file that knows a distributed library."""

from __future__ import annotations

import fnmatch
import inspect
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from instil.core import Batch, Net, Objectives, Scheme, Teacher, Update, closest

Options = dict[str, Any]


def world() -> int:
    """How many processes take part (1 without ``torchrun``)."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def join_ranks(device: str = "auto") -> torch.device:
    """The device of this process, which joins the others where ``torchrun`` started several."""
    here = _device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    return here


def wait_for_ranks() -> None:
    """Go on when every process has come here: what the first has written is there for all."""
    if world() > 1:
        dist.barrier()


def optimizer_named(name: str) -> type[Optimizer]:
    """An optimizer of torch by its name in any case; ValueError for an unknown one, and for one that asks for the loss several times a step."""
    known = {
        key.lower(): kind
        for key, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, Optimizer)
    }
    if name.lower() not in known:
        raise ValueError(
            f"No optimizer named '{name}' in torch.optim; {closest(name.lower(), known)}"
        )
    kind = known[name.lower()]
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{kind.__name__} asks for the loss several times a step, which a step on a global batch does not give; take adamw or sgd"
        )
    return kind


@dataclass(frozen=True)
class Optimization:
    """Which optimizer trains a learner: a name in ``torch.optim`` (any case), its options, and ``groups`` of parameters with options of their own.

    A group is ``{match: pattern, ...options}``; the pattern is matched against the parameter's name in its model (``head.*``).
    """

    type: str = "adamw"
    options: Options = field(default_factory=lambda: {"lr": 1e-3})
    groups: tuple[Mapping[str, Any], ...] = ()

    def make(self, groups: list[Options]) -> Optimizer:
        """The optimizer over ``groups``; ValueError for an unknown name or option."""
        try:
            return optimizer_named(self.type)(groups, **self.options)
        except TypeError as error:
            raise ValueError(f"optimizer '{self.type}': {error}") from error


class Engine:
    """Runs the updates of one scheme so that the result does not depend on how the batch was cut."""

    def __init__(
        self,
        device: str = "auto",
        precision: str = "float32",
        shard: bool = False,
        clip: float | None = None,
    ):
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is float32 or bfloat16, not '{precision}'")
        self.device = join_ranks(device)
        self.precision, self.shard, self.clip = precision, shard and world() > 1, clip
        self.nets: dict[str, list[nn.Parameter]] = {}
        self.parameters: dict[str, list[nn.Parameter]] = {}
        self.optimizers: dict[str, Optimizer] = {}
        self.modules: dict[str, list[nn.Module]] = {}
        self._spent = False
        self.generators: list[torch.Generator] = []  # further random states that a checkpoint holds

    def setup(self, scheme: Scheme, optimizations: Callable[[str], Optimization]) -> None:
        """Move, replicate or shard a prepared scheme, check that its learners partition its parameters, and make their optimizers."""
        scheme.to(self.device)
        for tensor in [*scheme.parameters(), *scheme.buffers()]:
            if world() > 1:
                dist.broadcast(tensor.data, 0)
        for part in scheme.modules():
            if isinstance(part, Objectives) and world() > 1:
                part.gather = gather_rows
        if self.shard:
            if not scheme.shards:
                why = "uses a part of a net or objective by itself, or differentiates it twice"
                raise ValueError(
                    f"{type(scheme).__name__} {why}, which sharding forbids; set train.shard: false"
                )
            parts = [part for part in scheme.modules() if isinstance(part, Objectives)]
            if inside := [name for part in parts for name in part.inside_the_graph()]:
                raise ValueError(
                    f"{inside[0]} takes gradients inside the student's graph, which a sharded net does not have; set train.shard: false"
                )
            if gone := [
                name for part in parts for name, objective in part.named() if not objective.shards
            ]:
                raise ValueError(
                    f"objectives.{gone[0]} reads weights of the members, which are gone after their forward; set train.shard: false"
                )
            mesh = init_device_mesh(self.device.type, (world(),))
            for child in scheme.children():
                _shard(child, mesh)
        owner: dict[nn.Parameter, str] = {}
        for name, paths in scheme.learners.items():
            self.modules[name] = [scheme.get_submodule(path) for path in paths]
            self._adopt(name, paths, scheme, optimizations(name), owner)
        for path, parameter in scheme.named_parameters():
            if parameter.requires_grad and parameter not in owner:
                raise ValueError(
                    f"parameter '{path}' can be trained but belongs to no learner ({', '.join(scheme.learners)}); freeze it or name it"
                )
        names = {parameter: path for path, parameter in scheme.named_parameters()}
        for path, part in scheme.named_modules():
            if (
                isinstance(part, Teacher)
                and (shared := next((p for p in part.parameters() if p in owner), None)) is not None
            ):
                raise ValueError(
                    f"parameter '{names[shared]}' is one of '{path}' too, which would learn with it; give the two nets of their own"
                )

    def _adopt(
        self,
        name: str,
        paths: Sequence[str],
        scheme: Scheme,
        optimization: Optimization,
        owner: dict[nn.Parameter, str],
    ) -> None:
        groups: list[Options] = [
            {"params": []} | {k: v for k, v in group.items() if k != "match"}
            for group in optimization.groups
        ]
        nets: Options = {"params": []}
        adapters: Options = {"params": [], "weight_decay": 0.0}
        for module in self.modules[name]:
            for path, parameter in module.named_parameters():
                if not parameter.requires_grad:
                    continue
                if owner.setdefault(parameter, name) != name:
                    raise ValueError(
                        f"parameter '{path}' belongs to two learners, {owner[parameter]} and {name}"
                    )
                matches = (
                    g
                    for g, spec in zip(groups, optimization.groups, strict=True)
                    if fnmatch.fnmatch(path.removeprefix("model."), spec["match"])
                )
                (adapters if isinstance(module, Objectives) else next(matches, nets))[
                    "params"
                ].append(parameter)
        for group, spec in zip(groups, optimization.groups, strict=True):
            if not group["params"]:
                raise ValueError(
                    f"optimizer group '{spec['match']}' matches no parameter of learner '{name}' ({', '.join(paths)})"
                )
        self.nets[name] = [p for group in (nets, *groups) for p in group["params"]]
        self.parameters[name] = [*self.nets[name], *adapters["params"]]
        if not self.parameters[name]:
            taken = {
                id(p): path
                for path, part in scheme.named_modules()
                if isinstance(part, Teacher)
                for p in part.parameters()
            }
            teacher = next(
                (
                    taken[id(p)]
                    for module in self.modules[name]
                    for p in module.parameters()
                    if id(p) in taken
                ),
                None,
            )
            why = (
                f": its weights are those of '{teacher}', which never learns; give the two nets of their own"
                if teacher
                else ""
            )
            raise ValueError(
                f"learner '{name}' ({', '.join(paths)}) has no parameter to train{why}"
            )
        optimizer = optimization.make(
            [group for group in (nets, *groups, adapters) if group["params"]]
        )
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.optimizers[name] = optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """Forward passes run inside this."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )

    def move(self, batch: Batch) -> Batch:
        """The batch on this engine's device."""
        return {
            key: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }

    def shares(self, counts: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The part of each micro-batch in the mean over all micro-batches of all ranks, loss by loss, update by update."""
        if not counts[0]:
            return [{} for _ in counts]
        sizes = [count.numel() for count in counts[0].values()]
        local = torch.stack(
            [
                torch.cat([count.reshape(-1).float() for count in count_of.values()])
                for count_of in counts
            ]
        )
        total = self.total(local.sum(0))
        return [
            dict(zip(counts[0], row.split(sizes), strict=True))
            for row in torch.where(total > 0, local / total, 0)
        ]

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks."""
        if world() > 1:
            dist.all_reduce(values)
        return values

    def most(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        if world() == 1:
            return number
        numbers = torch.tensor([number], device=self.device)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def backward(self, update: Update, share: dict[str, Tensor], last: bool) -> None:
        """Add the gradients of this micro-batch's part of the losses."""
        if self._spent:
            self.clear()  # only now: freed at the end of a step, their memory would be fetched anew for the next one's forward
        if self.shard:
            for part in (
                m
                for modules in self.modules.values()
                for module in modules
                for m in module.modules()
            ):
                if isinstance(part, FSDPModule):
                    part.set_requires_gradient_sync(last, recurse=False)
        loss = torch.stack([value * share[name] for name, value in update.losses.items()]).sum()
        (loss * world() if self.shard else loss).backward()  # type: ignore[no-untyped-call]  # FSDP averages over ranks, a share asks for the sum

    def step(self, learner: str | tuple[str, ...]) -> None:
        """One optimizer step of the learner (or learners) on the gradients added since the update before."""
        for name in (learner,) if isinstance(learner, str) else learner:
            parameters = self.parameters[name]
            if world() > 1 and not self.shard:
                _sum_over_ranks(parameters)
            if all(parameter.grad is None for parameter in parameters):
                raise RuntimeError(
                    f"no gradient reached learner '{name}': its losses do not depend on its parameters"
                )
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.nets[name], self.clip)
            self.optimizers[name].step()
        self._spent = True

    def clear(self) -> None:
        """Forget the gradients of the update before: this one's, and what its loss did to the weights of other learners."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        self._spent = False

    def finish(self, scheme: Scheme, kept: dict[str, list[Tensor]]) -> None:
        """Hand the rows of all micro-batches of all ranks, in global order, to ``after_step``."""
        if self.shard:
            for part in scheme.modules():
                if isinstance(part, FSDPModule):
                    part.reshard()
        with torch.no_grad():
            scheme.after_step({key: gather_rows(torch.cat(rows)) for key, rows in kept.items()})

    def agree(self) -> None:
        """Average over ranks what each moved by itself: the BatchNorm statistics of the learners."""
        if world() > 1:
            for buffer in (
                b
                for modules in self.modules.values()
                for module in modules
                for b in module.buffers()
                if b.is_floating_point()
            ):
                dist.all_reduce(buffer)
                buffer /= world()

    def rate(self, factor: float) -> None:
        """Set every learning rate to ``factor`` times its initial value."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def save(self, scheme: Scheme, path: Path, extra: Options) -> None:
        """Write all that training changes, whole or not at all; every rank takes part, the first writes."""
        state = {
            "scheme": _whole(_changing(scheme)),
            "optimizers": {
                name: _whole(optimizer.state_dict()) for name, optimizer in self.optimizers.items()
            },
            "random": _every_rank(_random_state(self.generators)),
            **extra,
        }
        if rank() == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".part")
            try:
                torch.save(state, temporary)
                os.replace(temporary, path)
            except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
                temporary.unlink(missing_ok=True)
                raise OSError(
                    f"checkpoint {path} could not be written, the last good one stays: {error}"
                ) from error

    def load(self, scheme: Scheme, path: Path) -> Options:
        """Restore what ``save`` wrote, under any number of ranks, and return its ``extra``."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        here = _changing(scheme)
        if wrong := sorted(set(state["scheme"]) ^ set(here)):
            raise ValueError(
                f"checkpoint {path} is of another scheme: it differs in {len(wrong)} tensors, such as '{wrong[0]}'"
            )
        for name, saved in state["scheme"].items():
            if saved.shape != here[name].shape:
                shapes = f"{tuple(saved.shape)} there and {tuple(here[name].shape)} here"
                raise ValueError(f"checkpoint {path} is of another scheme: '{name}' is {shapes}")
        for name, saved in state["scheme"].items():
            here[name].copy_(_like(saved, here[name]))
        for name, optimizer in self.optimizers.items():
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for number, moments in state["optimizers"][name]["state"].items():
                for key, moment in moments.items():
                    if isinstance(moment, Tensor) and moment.shape == parameters[number].shape:
                        moments[key] = _like(moment, parameters[number])
            optimizer.load_state_dict(state["optimizers"][name])
        if len(state["random"]) == world():
            _set_random_state(state["random"][rank()], self.generators)
        return {
            key: value
            for key, value in state.items()
            if key not in ("scheme", "optimizers", "random")
        }


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Repeated blocks are units of their own; what is left (embeddings, head) stays in the root's."""
    if type(module) is nn.ModuleList:
        for child in module:
            _shard(child, mesh)
        return
    for part in module.modules():
        if isinstance(part, Net):
            part.stops = False  # a forward that is cut short would leave its weights unsharded
    for block in (
        () if isinstance(module, Objectives) else _blocks(module)
    ):  # an objective may use a part of its adapter without calling the whole
        fully_shard(block, mesh=mesh)
    if any(True for _ in module.parameters()):
        fully_shard(module, mesh=mesh)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of lists and sequences that have parameters and parts of their own."""
    for child in module.children():
        if (
            isinstance(module, (nn.ModuleList, nn.Sequential))
            and any(True for _ in child.children())
            and any(True for _ in child.parameters())
        ):
            yield child
        else:
            yield from _blocks(child)


def _sum_over_ranks(parameters: Sequence[nn.Parameter]) -> None:
    """Sum every gradient over ranks, zeros where a rank has none; None stays None where no rank has one."""
    used = torch.tensor(
        [float(p.grad is not None) for p in parameters], device=parameters[0].device
    )
    flat = torch.cat(
        [used, *[(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]]
    )
    dist.all_reduce(flat)
    used, *grads = torch.split(flat, [len(parameters), *[p.numel() for p in parameters]])
    for parameter, any_rank, grad in zip(parameters, used.tolist(), grads, strict=True):
        parameter.grad = grad.view_as(parameter).clone() if any_rank else None


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks in order; backward sums what every rank's loss says about one's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        lengths = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world())]
        dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
        ctx.lengths = [int(length) for length in lengths]
        padded = rows.new_zeros((max(ctx.lengths), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.zeros_like(padded) for _ in range(world())]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, ctx.lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return torch.split(total, ctx.lengths)[rank()]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all ranks in global order, differentiable."""
    if world() == 1:
        return rows
    if rows.dtype == torch.bool:
        return gather_rows(rows.byte()).bool()
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


def _changing(scheme: Scheme) -> dict[str, Tensor]:
    """The state of what training changes: all but the teachers that stay."""
    fixed = tuple(
        f"{name}."
        for name, part in scheme.named_modules()
        if isinstance(part, Teacher) and not part.changes
    )
    return {
        name: value for name, value in scheme.state_dict().items() if not name.startswith(fixed)
    }


def _whole(state: Any) -> Any:
    return tree_map(lambda leaf: leaf.full_tensor() if isinstance(leaf, DTensor) else leaf, state)


def _like(saved: Tensor, here: Tensor) -> Tensor:
    return (
        distribute_tensor(saved, here.device_mesh, here.placements)
        if isinstance(here, DTensor)
        else saved
    )


def _random_state(generators: Sequence[torch.Generator]) -> Options:
    own = [generator.get_state() for generator in generators]
    state: Options = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "generators": own,
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: Options, generators: Sequence[torch.Generator]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    for generator, own in zip(generators, state["generators"], strict=False):
        generator.set_state(own.cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def _every_rank(state: Options) -> list[Options]:
    states: list[Any] = [state]
    if world() > 1:
        states = [None] * world()
        dist.all_gather_object(states, state)
    return states
