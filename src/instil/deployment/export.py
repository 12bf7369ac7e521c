"""Export of the student of a finished run to ONNX, transformers or GGUF."""

from __future__ import annotations

from pathlib import Path

from instil.core import Net
from instil.deployment.predict import load
from instil.experiment.experiment import Experiment
from instil.experiment.student_writer import tokenizer_of
from instil.plan.onnx_export import add_exports, evaluate_export, export_onnx
from instil.plan.run_folder import RunFolder
from instil.report.page import write_report


def export(path: Path, int8: bool, gguf: str | None = None, *, trust_code: bool = False) -> None:
    """Export the student of a run, evaluate and time the files, and update the report.

    A model of the transformers library is saved as a folder that ``from_pretrained`` loads;
    other students are exported to ONNX.

    Args:
        path: run folder.
        int8: also write a quantized ONNX file.
        gguf: also write a GGUF file; value: type of its weights. None: no GGUF file.
        trust_code: whether to execute the Python modules that the run's recipe names.

    Raises:
        ValueError: if the run is not complete, or the student cannot be exported to one of these
            formats. The other files are written before the error is raised.
        ImportError: without the extra ``export``.
        UntrustedCode: if code of the folder would be executed without ``trust_code``.
    """
    from instil.export.gguf import check_weight_type

    folder = RunFolder(path)
    if not (path / "student.safetensors").exists():
        if (path / "study.json").is_file():
            raise ValueError(
                f"RUN: {path} is the folder of a search. Expected that of a run. Train the winner "
                f"first: instil run {path / 'best.yaml'}"
            )
        raise ValueError(
            f"{path}: the run is not complete. Expected the file student.safetensors. Resume the "
            f"run: instil run --resume {path}"
        )
    student = load(path, trust_code=trust_code)
    experiment = Experiment.from_recipe(student.recipe, trust_code)
    is_transformers = hasattr(student.net.model, "save_pretrained")
    gguf_error = ""
    if gguf is not None:
        check_weight_type(gguf)
    if is_transformers:
        _export_transformers(folder, experiment, student.net)
    if gguf is not None:
        try:
            _export_gguf(folder, experiment, student.net, gguf)
        except ValueError as error:
            if not is_transformers:
                raise
            gguf_error = f"{error}. {path / 'student'} is written; only student.gguf is missing"
    if experiment.task.exports or not is_transformers:
        export_onnx(folder, experiment, student.net, int8)
    write_report(path)
    # Only now: a missing GGUF format must not prevent the other exports.
    if gguf_error:
        raise ValueError(gguf_error)


def _export_transformers(folder: RunFolder, experiment: Experiment, net: Net) -> None:
    from instil.export.latency import measure
    from instil.export.transformers import to_transformers

    batch = next(iter(experiment.loader(experiment.splits.validation, shuffle=False)))
    facts = to_transformers(net, batch, folder.path / "student", tokenizer_of(experiment))
    exported = Net(facts.pop("model"), net.call)
    facts |= evaluate_export(experiment, exported)
    facts["latency"] = measure(exported, batch)
    add_exports(folder, {"transformers": facts})


def _export_gguf(folder: RunFolder, experiment: Experiment, net: Net, weight_type: str) -> None:
    from instil.export.gguf import to_gguf

    batch = next(iter(experiment.loader(experiment.splits.validation, shuffle=False)))
    path = folder.path / "student.gguf"
    facts = to_gguf(net, batch, path, tokenizer_of(experiment), weight_type)
    exported = Net(facts.pop("model"), net.call)
    add_exports(folder, {"gguf": facts | evaluate_export(experiment, exported)})
