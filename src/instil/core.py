"""The six ideas: Batch and Outputs, Net, Teacher, Objective, Scheme with its Updates, Card."""

from __future__ import annotations

import contextlib
import difflib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

Batch = dict[str, Any]
"""What the loader yields: ``image`` ..., ``label`` (-100: none), ``valid`` (False: no item), ``index``, ``view``; ``fit`` adds
``step``, ``progress`` and ``seed``."""
Outputs = dict[str, Any]
"""Role -> tensor or tuple of tensors: ``logits``, ``features``, ``embedding`` ...; empty where there is no teacher."""
Call = Callable[[nn.Module, Batch], Outputs]
"""How a task asks a model: the model and a batch in, its roles out."""
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]

UNLABELLED = -100
SHARED_ROLES = frozenset({"head", "logit_scale"})
"""Roles that belong to a model, not to samples: they have no rows to pick, cut or gather. ``head`` is (weight, bias) of the classifier."""


@dataclass(frozen=True)
class Card:
    """Where a method comes from and where it fits; catalogue, docs and benchmark are made from it.

    ``source`` is what an objective learns from (labels, logits, features, relations) or how a scheme is arranged (offline, online, self);
    ``algorithms`` are the survey's other axis; ``labels`` the kinds of label under which the method is defined.
    """

    title: str
    paper: str = ""
    venue: str = ""
    year: int = 0
    source: str = ""
    algorithms: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("classification",)
    labels: tuple[str, ...] = ("single", "multi", "binary")
    couples: bool = False  # the loss of an item depends on the other items of the batch
    zero_at_match: bool = True  # the loss is zero where student and teacher say the same
    holds_graph: bool = False  # the scheme keeps outputs across a yield
    deviations: str = ""


@dataclass(frozen=True)
class Schedule:
    """A number that moves linearly from ``start`` to ``end`` while progress goes from ``after`` to ``until``."""

    start: float
    end: float
    until: float = 1.0
    after: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.after <= self.until <= 1:
            raise ValueError(f"a schedule needs 0 <= after <= until <= 1, not after={self.after}, until={self.until}")

    def at(self, progress: float) -> float:
        """The value at ``progress`` in [0, 1]."""
        if progress >= self.until:
            return self.end
        if progress <= self.after:
            return self.start
        return self.start + (self.end - self.start) * (progress - self.after) / (self.until - self.after)


def at_progress(value: float | Schedule, batch: Batch) -> float:
    """``value`` itself, or where its schedule stands at the batch's ``progress`` (0 where the batch has none)."""
    return value.at(float(batch.get("progress", 0.0))) if isinstance(value, Schedule) else value


def closest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the closest known ones, or all of a short list."""
    options = list(known)
    close = difflib.get_close_matches(name, options, 3, 0.4)
    if close:
        return f"closest: {', '.join(close)}"
    return f"known: {', '.join(options)}" if 0 < len(options) <= 20 else "no name is close to it"


def plain_call(model: nn.Module, batch: Batch) -> Outputs:
    """The first tensor of the batch goes in; a tensor that comes out is ``logits``, a mapping is taken as it is."""
    answer = model(first(batch))
    return dict(answer) if isinstance(answer, Mapping) else {"logits": answer}


class _Stop(Exception):
    """Ends a forward whose last wanted tap has fired."""


@dataclass(frozen=True)
class _Tap:
    """One place to read: the output, or with ``:in`` the first input, of a module's last call, or with ``[*]`` of all its calls; or its weight."""

    number: int
    role: str
    part: bool  # one tensor of the role's tuple, not the role itself
    path: str
    side: str
    every: bool


@dataclass
class _Recording:
    """What the taps saw in one forward: tensors with their version, and how often each tap fired."""

    roles: frozenset[str] | None  # None: all
    stop: bool
    tensors: dict[int, list[tuple[Tensor, int]]] = field(default_factory=dict)
    fired: dict[int, int] = field(default_factory=dict)


class Net(nn.Module):
    """A model, how its task calls it, and ``taps``: role -> path of the module whose activation is returned with the outputs.

    A path is a module's name as in ``named_modules``; ``path:in`` is its input, ``path[*]`` a tuple over all its calls, ``path:weight`` the weight
    (C, D) and bias (C,) of a linear layer or 1x1 convolution, zeros where it has none; a list of paths gives a tuple. Nothing of the model is
    edited; wrapper prefixes (DistributedDataParallel, ``torch.compile``) may be left out of the path.

    Raises ValueError for a path that names no module (with the closest names); RuntimeError for a tap that never fired, or whose tensor was
    changed in place after it was recorded.
    """

    def __init__(self, model: nn.Module, call: Call = plain_call, taps: Mapping[str, str | list[str]] | None = None):
        super().__init__()
        self.model, self.call = model, call
        self.taps = {role: paths if isinstance(paths, str) else list(paths) for role, paths in (taps or {}).items()}
        self.stops = True  # the engine turns this off where every forward must run to its end (sharding)
        self._recording: _Recording | None = None
        self._places = list(self._parse())
        names = {_unwrapped(name): module for name, module in model.named_modules()}
        for tap in self._places:
            if tap.path not in names:
                raise ValueError(f"taps.{tap.role}: {type(model).__name__} has no module '{tap.path}'; {closest(tap.path, names)}")
            if tap.side == "weight":
                if not isinstance(getattr(names[tap.path], "weight", None), Tensor):
                    raise ValueError(f"taps.{tap.role}: '{tap.path}' is a {type(names[tap.path]).__name__} and has no weight")
                names[tap.path].register_forward_hook(functools.partial(self._record_weight, tap))
            elif tap.side == "in":  # before the module runs, which may change its input in place
                names[tap.path].register_forward_pre_hook(functools.partial(self._record_input, tap), with_kwargs=True)
            else:
                names[tap.path].register_forward_hook(functools.partial(self._record_output, tap))

    def _parse(self) -> Iterator[_Tap]:
        texts = [(role, text) for role, paths in self.taps.items() for text in ([paths] if isinstance(paths, str) else paths)]
        for number, (role, text) in enumerate(texts):
            found = re.fullmatch(r"([^\[\]:]*)(?:(\[\*\])?(:in)?|(:weight))", text)
            if not found:
                forms = "write path, path[*] (all calls), path:in (its input), path[*]:in or path:weight (its weight and bias)"
                raise ValueError(f"taps.{role}: '{text}' is not a path; {forms}")
            side = "in" if found[3] else "weight" if found[4] else "out"
            yield _Tap(number, role, not isinstance(self.taps[role], str), found[1], side, bool(found[2]))

    def _record_input(self, tap: _Tap, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._record(tap, next(iter((*args, *kwargs.values())), None))

    def _record_output(self, tap: _Tap, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self._record(tap, output)

    def _record_weight(self, tap: _Tap, module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        weight, bias = module.weight, getattr(module, "bias", None)
        assert isinstance(weight, Tensor)
        flat = weight.view(len(weight), -1)  # a view: outputs carry no parameter
        self._store(tap, flat, flat.new_zeros(len(flat)) if bias is None else bias.view_as(bias))

    def _record(self, tap: _Tap, value: Any) -> None:
        value = value[0] if isinstance(value, (tuple, list)) else value
        if self._recording is not None and not isinstance(value, Tensor):
            raise RuntimeError(f"taps.{tap.role}: '{tap.path}' gave a {type(value).__name__}, not a tensor; tap a module inside it")
        self._store(tap, value)

    def _store(self, tap: _Tap, *values: Tensor) -> None:
        recording = self._recording
        if recording is None or (recording.roles is not None and tap.role not in recording.roles):
            return
        before = recording.tensors.get(tap.number, []) if tap.every else []
        recording.tensors[tap.number] = [*before, *((value, _version(value)) for value in values)]
        recording.fired[tap.number] = recording.fired.get(tap.number, 0) + 1
        if recording.stop and len(recording.fired) == len(self._among(recording.roles)):
            raise _Stop

    def _among(self, roles: frozenset[str] | None) -> list[_Tap]:
        return [tap for tap in self._places if roles is None or tap.role in roles]

    def forward(
        self,
        batch: Batch,
        call: Call | None = None,
        roles: frozenset[str] | None = None,
        stop: bool = False,
        replace: Mapping[str, Tensor] | None = None,
    ) -> Outputs:
        """Outputs of the task's call and of the taps.

        ``call`` asks the same net another way (generate, body only); ``roles``: of the taps read only these, and
        with ``stop`` end the forward after the last of them. ``replace``: path of a module -> what stands in for its output, so that
        the rest of the net runs on other features; ValueError for a path that names no module.
        """
        with self._replaced(replace or {}):
            outputs, recording = self._run(batch, call or self.call, roles, stop and self.stops)
        tapped: Outputs = {}
        for tap in self._among(roles):
            calls = recording.tensors.get(tap.number)
            if calls is None:
                if call is None:
                    raise RuntimeError(f"taps.{tap.role}: '{tap.path}' never fired: the forward did not call that module")
                continue
            if not torch.compiler.is_compiling() and any(_version(value) != version for value, version in calls):
                raise RuntimeError(f"taps.{tap.role}: '{tap.path}' was changed in place after it was recorded; tap the module after it")
            value = tuple(tensor for tensor, _ in calls) if tap.every or tap.side == "weight" else calls[-1][0]
            tapped[tap.role] = (*tapped.get(tap.role, ()), value) if tap.part else value
        return outputs | tapped

    @contextlib.contextmanager
    def _replaced(self, replace: Mapping[str, Tensor]) -> Iterator[None]:
        names = {_unwrapped(name): module for name, module in self.model.named_modules()} if replace else {}
        with contextlib.ExitStack() as hooks:
            for path, value in replace.items():
                if path not in names:
                    raise ValueError(f"replace: {type(self.model).__name__} has no module '{path}'; {closest(path, names)}")
                stands_in = functools.partial(_instead, value)
                hooks.callback(names[path].register_forward_hook(stands_in, prepend=True).remove)  # before the taps, which see it too
            yield

    def _run(self, batch: Batch, call: Call, roles: frozenset[str] | None, stop: bool) -> tuple[Outputs, _Recording]:
        self._recording = recording = _Recording(roles, stop)
        try:
            outputs = dict(call(self.model, batch))
        except _Stop:
            outputs = {}
        finally:
            self._recording = None
        return outputs, recording

    def can_stop(self, roles: frozenset[str], batch: Batch) -> bool:
        """Whether ``roles`` are all taps that fire once a forward, so that it may end with the last of them; tried on ``batch``."""
        if not roles or not roles <= set(self.taps):
            return False
        fired = self._run(batch, self.call, None, False)[1].fired
        return all(fired.get(tap.number) == 1 and not tap.every for tap in self._among(roles))


def _instead(value: Tensor, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
    """``value`` in the place of a module's output, or of the first of its outputs."""
    return type(output)((value, *output[1:])) if isinstance(output, (tuple, list)) else value


def _version(value: Tensor) -> int:
    """How often a tensor was changed in place; inference mode does not count."""
    return 0 if not torch.compiler.is_compiling() and value.is_inference() else value._version


def _unwrapped(name: str) -> str:
    """A module's name without the prefixes that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod", "_fsdp_wrapped_module"))


def as_net(model: nn.Module) -> Net:
    """A plain module as a Net with ``plain_call``; a Net as it is."""
    return model if isinstance(model, Net) else Net(model)


class Teacher(nn.Module):
    """Anything that answers a batch and is not trained by gradients: in eval mode whatever its parent does.

    ``changes`` says that training moves its state, so that a checkpoint must hold it.
    """

    changes: ClassVar[bool] = False
    card: ClassVar[Card]

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode."""
        super().train(False)
        return self

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        """The teacher's outputs; with ``grad``, differentiable with respect to the batch."""
        raise NotImplementedError

    def wants(self, roles: Iterable[str], batch: Batch) -> None:
        """Told once which roles will be read, so that it need not make the others."""


class Objective(nn.Module):
    """A loss of the student given the teacher, one value an item. May own trainable adapters and moving buffers.

    ``needs`` lists, for each side, what it reads; each need is a tuple of roles, best first, of which one must be there.
    ``reads`` holds the roles chosen. Options are kept as attributes of the same name.
    """

    card: ClassVar[Card]
    needs: ClassVar[dict[str, tuple[tuple[str, ...], ...]]] = {"student": (("logits",),), "teacher": (("logits",),)}
    samples: ClassVar[bool] = False  # its items are samples, also where ``valid`` has one entry a position

    def __init__(self) -> None:
        super().__init__()
        self.reads = {side: tuple(roles[0] for roles in needs) for side, needs in self.needs.items()}

    def resolve(self, student: Iterable[str], teacher: Iterable[str]) -> None:
        """Choose the roles to read among those there are; a miss is a ValueError that shows both lists."""
        there = {"student": set(student), "teacher": set(teacher)}
        for side, needs in self.needs.items():
            for roles in needs:
                if not there[side] & set(roles):
                    given = ", ".join(sorted(there[side])) or ("nothing (there is no teacher)" if side == "teacher" else "nothing")
                    raise ValueError(
                        f"{type(self).__name__} needs {' or '.join(roles)} of the {side}, which gives {given}; "
                        f"name the module that gives it in the {side}'s taps"
                    )
            self.reads[side] = tuple(next(r for r in roles if r in there[side]) for roles in needs)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make adapters; called once, on a dry batch, before the optimizer exists."""

    def weight(self, batch: Batch) -> Tensor:
        """How much each item counts, 0 for not at all: positions where ``valid`` has their shape, samples otherwise."""
        weight = items(batch)
        return weight.flatten(1).amax(1) if self.samples and weight.ndim > 1 else weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """One value an item, in the shape of ``weight``; a scalar where the card says ``couples``."""
        raise NotImplementedError

    def keep(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Rows that banks, queues and centres need; they come back, from all micro-batches and ranks, in ``after_step``."""
        return {}

    def after_step(self, kept: dict[str, Tensor]) -> None:
        """The only place where buffers move."""


class LabelObjective(Objective):
    """A loss that needs the label; items without one (-100) do not count."""

    def weight(self, batch: Batch) -> Tensor:
        if "label" not in batch:
            raise ValueError(f"{type(self).__name__} needs 'label' in the batch, which has {', '.join(batch)}")
        labelled = batch["label"] != UNLABELLED
        weight = super().weight(batch)
        counted: Tensor = weight * (labelled.flatten(1).any(1) if labelled.ndim > weight.ndim else labelled)
        return counted


@dataclass
class Update:
    """One optimizer step of ``learner`` (or of several: one loss, several optimizers) on these losses, each the mean over its own items."""

    losses: dict[str, Tensor]
    learner: str | tuple[str, ...] = "student"
    keep: dict[str, Tensor] = field(default_factory=dict)


Gather = Callable[[Tensor], Tensor]


class Objectives(nn.ModuleDict):
    """Named, weighted objectives as one module; takes the weighted means, so that no objective does.

    ``weights`` are numbers or schedules (1 where none is given); an option of an objective may be a schedule too.
    An objective that couples its items gets the counted items of all ranks, flat, and of the batch only what belongs to items.
    """

    ITEM_KEYS = ("label", "index", "view")

    def __init__(self, objectives: Mapping[str, Objective], weights: Mapping[str, float | Schedule] | None = None):
        super().__init__()
        self.weights: dict[str, float | Schedule] = {**dict.fromkeys(objectives, 1.0), **(weights or {})}
        if unknown := sorted(set(self.weights) - set(objectives)):
            raise ValueError(f"a weight for '{unknown[0]}', which is no objective here; {closest(unknown[0], objectives)}")
        self.schedules = {n: {k: v for k, v in vars(o).items() if isinstance(v, Schedule)} for n, o in objectives.items()}
        for name, schedules in self.schedules.items():
            for option, schedule in schedules.items():
                setattr(objectives[name], option, schedule.start)  # what adapters are built with
        self.gather: Gather | None = None  # set by the engine where there are several ranks
        for name in objectives:
            if not name or "." in name or hasattr(self, name):
                raise ValueError(f"objectives.{name}: this cannot be the name of an objective; give it another one, and say the method with type")
        self.update(objectives)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Resolve what every objective reads and make its adapters."""
        for name, objective in self.named():
            try:
                objective.resolve(student, teacher)
                objective.build(student, teacher)
            except ValueError as error:
                raise ValueError(f"objectives.{name}: {error}") from error

    def reads(self, side: str) -> set[str]:
        """All roles that are read of ``side``."""
        return {role for _, objective in self.named() for role in objective.reads.get(side, ())}

    @property
    def differentiates(self) -> bool:
        """Whether an objective reads ``input``, by which it takes gradients."""
        return "input" in self.reads("student") | self.reads("teacher")

    def leaf(self, batch: Batch) -> Batch:
        """The batch's first tensor as a leaf that gradients reach, under its key, where an objective reads ``input``; else nothing."""
        if not self.differentiates:
            return {}
        key, value = next((key, value) for key, value in batch.items() if value is first(batch))
        if not value.is_floating_point():
            raise ValueError(f"an objective reads the gradient by the input, but '{key}', the batch's first tensor, is {value.dtype}")
        return {key: value.detach().requires_grad_()}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, learner: str | tuple[str, ...] = "student") -> Update:
        """The update of ``learner`` on the weighted mean of every objective."""
        losses, kept = {}, {}
        student, teacher = self._raised("student", student), self._raised("teacher", teacher)
        for name, objective in self.named():
            for option, schedule in self.schedules[name].items():
                setattr(objective, option, schedule.at(float(batch.get("progress", 0.0))))
            take = self._coupled if objective.card.couples else self._mean
            with torch.autocast(first(batch).device.type, enabled=False):
                losses[name] = at_progress(self.weights[name], batch) * take(objective, student, teacher, batch)
                with torch.no_grad():
                    kept.update({f"{name}.{row}": value for row, value in objective.keep(student, teacher, batch).items()})
        return Update(losses, learner, kept)

    def _raised(self, side: str, outputs: Outputs) -> Outputs:
        """The outputs with what is read of them in float32 or better, so that no objective computes in half precision."""

        def raised(value: Any) -> Any:
            return tuple(map(raised, value)) if isinstance(value, tuple) else full(value) if isinstance(value, Tensor) else value

        return outputs | {role: raised(outputs[role]) for role in self.reads(side) if role in outputs}

    @staticmethod
    def _mean(objective: Objective, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return mean(objective(student, teacher, batch), objective.weight(batch))

    def _coupled(self, objective: Objective, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The loss of the counted items of all ranks together; zero where nothing counts anywhere."""
        counted = objective.weight(batch) > 0
        picks = "valid" in batch or isinstance(objective, LabelObjective)  # else every item counts, and asking would wait for the device

        def collect(value: Any, role: str = "") -> Any:
            if role in SHARED_ROLES:
                return value
            if isinstance(value, tuple):
                return tuple(collect(part) for part in value)
            if picks:
                value = value[counted if value.shape[: counted.ndim] == counted.shape else counted.flatten(1).any(1)]
            return value if self.gather is None else self.gather(value)

        mine = {role: collect(student[role], role) for role in objective.reads["student"]}
        theirs = {role: collect(teacher[role], role) for role in objective.reads["teacher"]}
        items: Batch = {key: collect(batch[key]) for key in self.ITEM_KEYS if key in batch}
        clock = {key: batch[key] for key in ("step", "progress", "seed") if key in batch}
        anchor = next(value for role, value in mine.items() if role not in SHARED_ROLES)
        if not len(anchor[0] if isinstance(anchor, tuple) else anchor):
            return nothing(mine, mine)
        loss: Tensor = objective(mine, theirs, items | clock)
        return loss

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """How many items stand behind each loss."""
        return {name: objective.weight(batch).sum() for name, objective in self.named()}

    def after_step(self, kept: dict[str, Tensor]) -> None:
        """Hand every objective its own rows."""
        for name, objective in self.named():
            objective.after_step({key[len(name) + 1 :]: rows for key, rows in kept.items() if key.startswith(name + ".")})

    def named(self) -> Iterator[tuple[str, Objective]]:
        """Name and objective, in order."""
        for name, objective in self.items():
            assert isinstance(objective, Objective)
            yield name, objective


class Scheme(nn.Module):
    """Who learns from whom, in which order: ``step`` is a generator and every ``yield`` is one optimizer step.

    ``learners`` maps a name to the submodules it trains; they must partition the trainable parameters. ``teacher`` may be None (a student alone).
    """

    card: ClassVar[Card]

    def __init__(self, student: nn.Module, teacher: Teacher | None, objectives: Objectives | Mapping[str, Objective]):
        super().__init__()
        self.learners: dict[str, tuple[str, ...]] = {"student": ("student", "objectives")}
        self.student, self.teacher = as_net(student), teacher
        self.objectives = objectives if isinstance(objectives, Objectives) else Objectives(objectives)
        self.prepared = False

    def ask(self, batch: Batch, grad: bool = False) -> Outputs:
        """The teacher's outputs, {} where there is none."""
        return {} if self.teacher is None else self.teacher(batch, grad=grad)

    def compare(self, batch: Batch) -> Update:
        """The objectives' update; the teacher is asked first, so that its temporaries are gone before the student's graph is kept.

        Where an objective reads ``input``, both sides are differentiable by one leaf that stands for the batch's first tensor.
        """
        leaf = self.objectives.leaf(batch)
        teacher = self.ask(batch | leaf, grad=bool(leaf))
        inputs = {"input": first(batch | leaf)} if leaf else {}
        update: Update = self.objectives(self.student(batch | leaf) | inputs, teacher | inputs, batch)
        return update

    def prepare(self, batch: Batch) -> None:
        """Build what depends on shapes, once, on a dry batch: eval mode, no gradients, random state as it was."""
        if not self.prepared:
            with dry(self):
                self.build(batch)
            self.prepared = True

    def build(self, batch: Batch) -> None:
        """What ``prepare`` does inside the dry run."""
        inputs = {"input": first(batch)} if self.objectives.differentiates else {}
        self.objectives.build(self.student(batch) | inputs, self.ask(batch) | (inputs if self.teacher else {}))
        if self.teacher is not None:
            self.teacher.wants(self.objectives.reads("teacher") - {"input"}, batch)

    def before_step(self, batch: Batch) -> Batch:
        """What the step learns from (rollouts, attacks, made images); leaves no gradient on any learner."""
        return batch

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Items behind each loss of ``step``: a scalar, or one entry for each update of that loss."""
        return self.objectives.counts(batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        """Changes no state; every micro-batch and rank must yield the same learners in the same order."""
        raise NotImplementedError

    def after_step(self, kept: dict[str, Tensor]) -> None:
        """The only place where state moves, apart from the optimizers."""
        self.objectives.after_step(kept)

    def export(self) -> Net:
        """What is evaluated, timed and shipped."""
        return self.student


@contextlib.contextmanager
def dry(module: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients, a forked random state: nothing that happens inside is felt outside."""
    modes = {part: part.training for part in module.modules()}
    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode


def first(batch: Batch) -> Tensor:
    """The first tensor of the batch that has dimensions; its first dimension is the batch size."""
    for value in batch.values():
        if isinstance(value, Tensor) and value.ndim:
            return value
    raise ValueError(f"the batch has no tensor with dimensions; its keys are {', '.join(batch) or 'none'}")


def size(batch: Batch) -> int:
    """How many samples a batch has."""
    return len(first(batch))


def items(batch: Batch) -> Tensor:
    """How much each item counts: ``valid`` as float, ones for every sample where there is none."""
    valid: Tensor | None = batch.get("valid")
    return torch.ones(size(batch), device=first(batch).device) if valid is None else valid.float()


def mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean in float32 or better; zero, with its graph, where nothing counts; a scalar (coupled) as it is."""
    if values.ndim == 0:
        return values
    if values.shape != weight.shape:
        shapes = f"loss values {tuple(values.shape)} for items {tuple(weight.shape)}"
        raise ValueError(f"{shapes}; where a sample has several items, the batch needs 'valid'")
    values = full(values)
    return torch.where(weight > 0, values * weight, 0.0).sum() / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)


def nothing(outputs: Outputs, roles: Iterable[str]) -> Tensor:
    """A zero that hangs on these outputs: the loss of no items."""
    parts = [part for role in roles for part in (outputs[role] if isinstance(outputs[role], tuple) else (outputs[role],))]
    return torch.stack([full(part).nan_to_num(0, 0, 0).sum() * 0 for part in parts]).sum()


def full(values: Tensor) -> Tensor:
    """Half precision raised to float32; float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def uniform(batch: Batch, n: int, salt: int = 0) -> Tensor:
    """(N, n) numbers in [0, 1) that depend on seed, step and sample alone, not on cut, rank or device."""
    if "index" not in batch:
        raise ValueError(f"per-sample randomness needs 'index' in the batch, which has {', '.join(batch)}; let the data set return it")
    index: Tensor = batch["index"]
    moment = (int(batch.get("seed", 0)) * 0xD1342543DE82EF95 + int(batch.get("step", 0)) * 1_000_003 + salt) * 0x94D049BB133111EB
    x = index[:, None] * _signed(0x9E3779B97F4A7C15) + torch.arange(n, device=index.device) * _signed(0xBF58476D1CE4E5B9) + _signed(moment)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64, with logical shifts
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return ((x >> 11) & (2**24 - 1)).float() / 2**24


def _signed(number: int) -> int:
    number &= 2**64 - 1
    return number - 2**64 if number & 2**63 else number
