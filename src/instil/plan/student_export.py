"""Export of the student with the best validation metric."""

from __future__ import annotations

from instil.core import Net
from instil.experiment.experiment import Experiment
from instil.experiment.network_inputs import exported_student
from instil.export.student import save_student
from instil.files.atomic import atomic
from instil.networks.sklearn_model import SklearnModel
from instil.plan import results
from instil.plan.mistakes import write_mistakes
from instil.plan.onnx_export import export_onnx
from instil.plan.run_folder import RunFolder
from instil.plan.trained_model import TrainedModel


def export_best_student(
    experiment: Experiment, folder: RunFolder, students: list[TrainedModel]
) -> None:
    """Write the weights of the best student, its ONNX file and pictures of its mistakes.

    An estimator is also written as a skops file, which scikit-learn reads without this package.

    Args:
        experiment: data and task of the recipe.
        folder: run folder with the result.
        students: student of each seed, of the arm ``exported_arm`` of the recipe.
    """
    net = students[results.exported_seed_index(experiment, students)].net
    assert isinstance(net, Net)
    description = {
        "classes": list(experiment.splits.classes),
        "facts": experiment.facts_for(exported_student(experiment.recipe)),
        "shape": list(experiment.shape),
        "kind": experiment.splits.kind,
    }
    save_student(net, folder.path / "student.safetensors", description)
    if isinstance(net.model, SklearnModel):
        with atomic(folder.path / "student.skops") as temporary:
            temporary.write_bytes(net.model.stored_bytes())
    if experiment.recipe.export:
        try:
            export_onnx(folder, experiment, net, int8=False)
        except (ImportError, ValueError, RuntimeError) as error:
            # A failed export must not lose the trained networks.
            result = folder.read_json("result.json") or {}
            warning = f"the student could not be exported to ONNX: {error}"
            folder.write_json("result.json", result | {"warnings": [*result["warnings"], warning]})
    write_mistakes(experiment, folder)
