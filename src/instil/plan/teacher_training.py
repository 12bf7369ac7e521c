"""Teachers of a run: loaded, read from the cache, or trained once."""

from __future__ import annotations

import time
from pathlib import Path
from weakref import WeakValueDictionary

from instil import catalogue
from instil.cards import has_tag
from instil.core import Net
from instil.engine import rank, wait_for_ranks
from instil.experiment.experiment import Experiment
from instil.experiment.fitted_teacher import fit_teacher
from instil.experiment.schemes import build_teacher_scheme, samples_for_scheme
from instil.experiment.teachers import teacher_training_data
from instil.experiment.trained_teachers import (
    build_final_architecture,
    build_teacher,
    cache_path,
    checkpoint_shares,
    read_cached,
)
from instil.experiment.training_options import build_training
from instil.export.student import save_student
from instil.files.locks import FileLock
from instil.plan import finished_students
from instil.plan.fitting import Fitter
from instil.recipe.sections import TeacherConfig


class TeacherTrainer:
    """Builds the teachers of a recipe; those that need a training are trained once and cached.

    Args:
        stages: experiment of each training stage.
        fitter: trains into the run folder.
    """

    def __init__(self, stages: list[Experiment], fitter: Fitter) -> None:
        self.stages = stages
        self.fitter = fitter
        self.folder = fitter.folder
        self._logged_paths: dict[str, Path] = {}
        # Weak: a teacher may be large, and is kept only as long as a job uses it.
        self._ready_nets: WeakValueDictionary[str, Net] = WeakValueDictionary()

    def network(self, stage: Experiment, spec: TeacherConfig, index: int) -> tuple[Net, float]:
        """Return a teacher and the seconds of its training.

        Args:
            stage: experiment of the stage.
            spec: section of the teacher.
            index: index of the teacher among those of the stage.
        """
        if spec.ready:
            return self._ready_net(stage, spec, index), 0.0
        path = cache_path(stage, spec, index)
        # Several runs may need the same teacher: one trains it, the others wait for its file.
        lock = FileLock(path.with_suffix(".lock"))
        if rank() == 0:
            lock.acquire()
        try:
            return self._cached_or_trained(stage, spec, index, path)
        finally:
            lock.release()

    def _cached_or_trained(
        self, stage: Experiment, spec: TeacherConfig, index: int, path: Path
    ) -> tuple[Net, float]:
        name = _training_name(stage, index)
        net = build_final_architecture(stage, spec, index)
        cached = read_cached(net, path)
        if cached is None:
            return self._train(stage, spec, index, net)
        if self._logged_paths.get(name) != path:
            keys = {"seed": None, "arm": name, "stage": 0}
            self.fitter.log_again(name, None, [keys | record for record in cached.records])
            self._logged_paths[name] = path
        finished_students.delete_checkpoints(self.folder, name, None, 1)
        return net, cached.seconds

    def _train(
        self, stage: Experiment, spec: TeacherConfig, index: int, net: Net
    ) -> tuple[Net, float]:
        """Train a teacher and write it to the cache."""
        if spec.is_fitted:
            return self._fit(stage, spec, index, net)
        name, path = _training_name(stage, index), cache_path(stage, spec, index)
        self.folder.remove_records(name, None)
        self._logged_paths[name] = path
        shares = checkpoint_shares(self.stages, stage, spec, index)
        for share in shares:
            if share < spec.checkpoint_at:
                # The training continues from the checkpoint of the earlier share.
                earlier = spec.model_copy(update={"checkpoint_at": share})
                self.network(stage, earlier, index)
                self.folder.remove_records(name, None)
        kind = catalogue.find("scheme", spec.scheme.type)
        if len(shares) > 1 or has_tag(kind, "new_architecture"):
            # Built again: training starts from the bare network, with the random state of its seed.
            net = build_teacher(stage, spec, index)
        own = teacher_training_data(stage, spec, index).for_network(spec)
        scheme = build_teacher_scheme(own, net, spec)
        train = stage.recipe.teacher_train or stage.recipe.train
        training = build_training(
            train, index, learners=list(scheme.learners), until=spec.checkpoint_at
        )
        samples = samples_for_scheme(scheme, own.splits.train)
        result = self.fitter.fit(name, None, scheme, samples, training, own)
        if rank() == 0:
            record = {"seconds": result.seconds, "records": result.records}
            save_student(result.net, path, record)
        wait_for_ranks()
        if spec.checkpoint_at == shares[-1]:
            finished_students.delete_checkpoints(self.folder, name, None, 1)
        return result.net, result.seconds

    def _fit(
        self, stage: Experiment, spec: TeacherConfig, index: int, net: Net
    ) -> tuple[Net, float]:
        """Fit a teacher that is not trained by gradients, and write it to the cache."""
        path = cache_path(stage, spec, index)
        start = time.perf_counter()
        # All ranks need the estimator, but only one of them computes and writes it.
        if rank() == 0:
            fit_teacher(teacher_training_data(stage, spec, index).for_network(spec), net)
            seconds = time.perf_counter() - start
            save_student(net, path, {"seconds": seconds, "records": []})
        wait_for_ranks()
        record = read_cached(net, path)
        assert record is not None
        return net, record.seconds

    def _ready_net(self, stage: Experiment, spec: TeacherConfig, index: int) -> Net:
        """Return a teacher that needs no training; jobs that run together share one copy."""
        key = repr((spec, index, stage.recipe.data))
        # Sharding replaces the parameters of a network, so that it cannot be shared.
        net = None if stage.recipe.train.shard else self._ready_nets.get(key)
        if net is None:
            net = self._ready_nets[key] = build_teacher(stage, spec, index)
        return net


def _training_name(stage: Experiment, index: int) -> str:
    is_only = sum(not spec.earlier for spec in stage.recipe.teachers) == 1
    return "teacher" if is_only else f"teacher{index}"
