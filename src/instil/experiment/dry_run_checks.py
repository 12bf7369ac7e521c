"""Checks of the dry run: networks, classes, schemes and training options on one batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from instil.core import Batch, Net, Scheme, first_tensor, side_effect_free
from instil.data.aligned import read_by_teacher
from instil.data.samples import Samples
from instil.engine import check_shardable
from instil.engine.activation_checkpointing import checkpoint_learners
from instil.engine.learners import create_learners
from instil.experiment.experiment import Experiment
from instil.experiment.own_losses import check_own_losses
from instil.experiment.schemes import build_teacher_scheme, samples_for_scheme
from instil.experiment.shard_checks import check_images_of_shards
from instil.experiment.training_options import build_training
from instil.experiment.vocabularies import check_vocabulary
from instil.recipe import error_context
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe, TeacherConfig, TrainConfig
from instil.training.fit import check


def check_trained_teacher(experiment: Experiment, net: Net, index: int) -> None:
    """Check that a trained teacher can read the data.

    Args:
        experiment: experiment of the stage.
        net: the teacher.
        index: index of the teacher in the stage.

    Raises:
        RecipeError: for data with other facts, or tokens with other ids.
    """
    config = experiment.recipe.teachers[index]
    data = experiment.for_network(config)
    with error_context("teacher"):
        experiment.task.check_model(net.model, experiment.facts_for(config))
    check_vocabulary(net, data, config, "teacher")


def check_teacher_training(
    experiment: Experiment, net: Net, teacher_config: TeacherConfig, batch: Batch
) -> None:
    """Check that a teacher can be trained before the stage.

    Args:
        experiment: data of the teacher.
        net: the untrained teacher.
        teacher_config: section of the teacher.
        batch: batch of its training samples.

    Raises:
        RecipeError: for classes, a scheme or training options that do not fit.
    """
    recipe = experiment.recipe
    check_classes(experiment, net, batch, "teacher", None)
    scheme = build_teacher_scheme(experiment, net, teacher_config)
    prepare_scheme(
        scheme, read_by_teacher(batch) if teacher_config.tokenizer else batch, "teacher.scheme"
    )
    train = recipe.teacher_train or recipe.train
    path = "train" if train == recipe.train else "teacher_train"
    with error_context("teacher"):
        samples = samples_for_scheme(scheme, experiment.splits.train)
    check_own_losses(scheme, batch, samples)
    try:
        check_training(experiment, scheme, train, path, [samples], learners=scheme.learners)
    except RecipeError as error:
        if train != recipe.train:
            raise
        raise RecipeError(
            f"{error}. This is the teacher's training, which has the options of train unless "
            "teacher_train sets others"
        ) from error


def prepare_scheme(scheme: Scheme, batch: Batch, path: str = "scheme") -> None:
    """Prepare a scheme with a batch.

    Args:
        scheme: the scheme.
        batch: batch of the student.
        path: recipe path of the scheme.

    Raises:
        RecipeError: if the parts of the scheme do not fit each other or the batch. Errors without
            a recipe path get that of the scheme, or of the teacher for errors of its server.
    """
    try:
        scheme.prepare(batch)
    except ValueError as error:
        message = str(error)
        first_key = message.partition(":")[0].partition(".")[0]
        if first_key in Recipe.model_fields:
            raise RecipeError(message) from error
        is_of_server = message.startswith(("http://", "https://", "labels:", "the response has no"))
        path = "teacher" if is_of_server else path
        raise RecipeError(f"{path}: {message}") from error


def check_precompute(recipe: Recipe) -> None:
    """Check that the inputs of a precomputed teacher exist before the stage.

    Raises:
        RecipeError: for images that are made during training.
    """
    conflicts = {
        "data.augment.mixup": recipe.data.augment.mixup,
        "data.surrogate": recipe.data.surrogate is not None,
    }
    for key, is_set in conflicts.items():
        if is_set:
            raise RecipeError(
                f"teacher.precompute: {key} makes images that do not exist before the stage. "
                f"Remove {key} or teacher.precompute"
            )


def check_forward(net: Net, batch: Batch, path: str) -> None:
    """Check that a network can read a batch.

    Args:
        net: the network.
        batch: the batch.
        path: ``student`` or ``teacher``, for messages.

    Raises:
        RecipeError: for any error of the forward pass.
    """
    try:
        with side_effect_free(net):
            net(batch)
    except Exception as error:  # a model of the user may raise anything
        inputs = "images" if "image" in batch else next(iter(batch))
        shape = " x ".join(str(size) for size in first_tensor(batch).shape[1:])
        raise RecipeError(
            f"{path}: {type(net.model).__name__} fails on {inputs} of {shape}: {error}"
        ) from error


def check_classes(
    experiment: Experiment,
    net: Net,
    batch: Batch,
    path: str,
    names: Sequence[str] | None,
    classes: Sequence[str] | None = None,
) -> None:
    """Check the classes of a network's logits or detections, if it returns any.

    Args:
        experiment: experiment of the stage.
        net: the network.
        batch: the batch.
        path: ``student`` or ``teacher``, for messages.
        names: class names of the network; None: those of the data.
        classes: expected class names; None: those of the data.

    Raises:
        RecipeError: for another number or another order of classes than in the data.
    """
    with side_effect_free(net), error_context(path):
        outputs = net(batch)
        if outputs.keys() & {"logits", "detections"}:
            expected = experiment.splits.classes if classes is None else classes
            experiment.task.check_classes(outputs, expected, names=names, whose=path)


def check_metrics(experiment: Experiment, student: Net) -> None:
    """Check the metrics of a recipe on a batch of the validation data.

    Args:
        experiment: experiment of the recipe.
        student: the student.

    Raises:
        RecipeError: for outputs or labels that a metric reads and that do not exist.
    """
    if not experiment.task.metrics:
        return
    batch = next(iter(experiment.loader(experiment.splits.validation, shuffle=False)))
    with error_context(""):
        experiment.task.check_metrics(student, batch)


def check_training(
    experiment: Experiment,
    scheme: Scheme,
    train: TrainConfig,
    path: str,
    sample_sets: Iterable[Samples],
    learners: Collection[str] | None = None,
) -> None:
    """Check that ``fit`` accepts the training options.

    Args:
        experiment: data of the training.
        scheme: scheme that is trained.
        train: training options.
        path: recipe path of the training options.
        sample_sets: sets of samples that the scheme or a baseline is trained on.
        learners: learners that the scheme has; None: every optimizer must have its learner.

    Raises:
        RecipeError: for optimizers or learners that do not fit, and for batches that cannot be cut.
    """
    sample_sets = list(sample_sets)
    training = build_training(train, 0, learners=learners)
    check(scheme, training)
    with error_context(path):
        if train.shard:
            check_shardable(scheme, map(training.optimization_of, scheme.learners))
            check_images_of_shards(scheme, [*sample_sets, experiment.splits.validation])
        if train.activation_checkpointing:
            checkpoint_learners(scheme)
        # Networks stay where they are: the batch is there, and they may not fit on the device.
        create_learners(scheme, training.optimization_of)
        for samples in sample_sets:
            experiment.loader(samples, accumulate=train.accumulate)
