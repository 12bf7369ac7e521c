"""Correlation of the signals before trials with the gains of finished studies.

python benchmarks/signals.py [STUDY ...] [--json benchmarks/signals.json] [--model FILE]

A STUDY is a ``search.json`` or the folder of a search. The script also reads the results in
``modalities``, ``proof/exhaustive``, ``methods.json`` and ``defaults.json``. A search that is given
replaces the result of the same name.

- Gain: mean difference from the student alone on the test split, divided by the error of the
  student alone (its score, if lower is better).
- Signals of a method (gradient norm and cosine): Spearman correlation with the gain over the
  methods of a study, averaged over studies.
- Signals of a task: Spearman correlation with the gain over studies.
- Intervals: 95 % percentile bootstrap over tasks, which keeps the studies of a task together. Fewer
  than six tasks have no interval.
- Model: ridge regression of the rank of a method within its study on its signals, its kind and its
  name. Each task is predicted from the others. ``--model`` writes the coefficients of all tasks.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata  # type: ignore[import-untyped, unused-ignore]

from instil import catalogue
from instil.early_signals.advice import with_derived
from instil.early_signals.gain_model import RIDGE, features_of, method_kind
from instil.files.json_files import write_json

HERE = Path(__file__).parent
NUM_SAMPLES = 1000
MIN_TASKS = 6
"""Smallest number of tasks with an interval."""
MIN_METHODS = 4
"""Smallest number of methods in a study whose order is compared."""
TASK_SIGNALS = (
    "teacher_score",
    "label_agreement",
    "memorisation",
    "entropy",
    "calibration_error",
    "unsure_share",
    "parameter_ratio",
    "operation_ratio",
    "probe_accuracy",
    "labels_per_class",
    "unlabelled_per_labelled",
    "level_similarity",
)
METHOD_SIGNALS = ("log_norm_ratio", "cosine")
CLASS_KINDS = ("single",)
"""Kinds of labels for which the shipped model is fitted."""
OTHER_KINDS = ("language", "segmentation", "image_text", "regression", "detection")
"""Tasks whose labels are of another kind, or whose methods are."""
REFERENCES = ("alone", "label_smoothing", "pseudo_labels")

Row = dict[str, Any]


@dataclass
class Study:
    """Gains and signals of one finished study.

    Attributes:
        name: name of the study.
        task: name of its task; studies of one task are not independent.
        source: file of the study.
        signals: signals of teacher, student and data.
        gains: method -> gain over the student alone.
        method_signals: method -> ``norm_ratio`` and ``cosine``.
    """

    name: str
    task: str
    source: str
    signals: Row = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)
    method_signals: dict[str, Row] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Methods of the catalogue, without the baselines."""
        return [name for name in self.gains if name not in REFERENCES and method_kind(name)]


def relative_gain(
    treated: Sequence[float], control: Sequence[float], higher_is_better: bool
) -> float | None:
    """Return the gain as a share of the error of the control; None without an error."""
    scores = np.mean(treated), np.mean(control)
    error = 1 - scores[1] if higher_is_better else scores[1]
    if error <= 0:
        return None
    return float((scores[0] - scores[1]) * (1 if higher_is_better else -1) / error)


def read_search(content: Row, source: str) -> Study:
    """Read a study from ``search.json``, or a file of ``modalities`` or ``proof/exhaustive``."""
    name = re.sub(r"[._]recipe$", "", content.get("name") or Path(source).stem)
    study = Study(name, name, source)
    if content.get("signals"):
        study.signals = with_derived(content["signals"])
    arms = content.get("arms", [])
    # A search has a list of arms, and an exhaustive result a mapping with their scores.
    rows = content.get("finalists") or [{"name": name} | arm for name, arm in arms.items()]
    scores = {row["name"]: row["test"]["values"] for row in rows}
    for method, values in scores.items():
        if method == "alone" or "alone" not in scores:
            continue
        gain = relative_gain(values, scores["alone"], content["higher_is_better"])
        if gain is not None:
            study.gains[method] = gain
    signals = content.get("arm_signals", {})
    if isinstance(arms, list):
        signals = {arm["name"]: arm.get("signals") for arm in arms} | signals
    study.method_signals = {method: one for method, one in signals.items() if one}
    return study


def read_methods(content: Row, source: str) -> Iterable[Study]:
    """Read one study per task from ``benchmarks/methods.json``, which has no signals."""
    for task in dict.fromkeys(row["task"] for row in content["rows"]):
        rows = {row["name"]: row for row in content["rows"] if row["task"] == task}
        alone = rows.get("alone")
        higher_is_better = rows["reference"]["metric"] != "rmse" if "reference" in rows else True
        if alone is None or not 0 < alone["mean"] < 1:
            continue
        study = Study(f"methods: {task}", task, source)
        for name, row in rows.items():
            gain = relative_gain([row["mean"]], [alone["mean"]], higher_is_better)
            if name not in ("alone", "reference") and gain is not None:
                study.gains[name] = gain
        yield study


def read_defaults(content: Row, source: str) -> Iterable[Study]:
    """Read one study per condition from ``benchmarks/defaults.json``, with new seeds."""
    for row in content["confirm"]:
        scores = {arm: next(iter(rates.values())) for arm, rates in row["arms"].items()}
        name = f"{row['task']}, {row['labels']} labels, teacher of {row['teacher']}"
        study = Study(name, row["task"], source)
        study.signals = {
            "teacher_score": row["teacher_test_accuracy"],
            "unlabelled_per_labelled": 1 / row["share"] - 1,
        }
        for arm, values in {"kd": scores["kd_t2"], **scores}.items():
            gain = relative_gain(values, scores["alone"], higher_is_better=True)
            if arm in ("kd", *REFERENCES[1:]) and gain is not None:
                study.gains[arm] = gain
        yield study


def read(path: Path) -> list[Study]:
    """Read the studies of a file, or of the folder of a search."""
    path = path / "search.json" if path.is_dir() else path
    content = json.loads(path.read_text(encoding="utf-8"))
    source = path.parent.name
    if path.name != "search.json":
        source = path.resolve().relative_to(HERE.parent).as_posix()
    if path.name == "methods.json":
        return list(read_methods(content, source))
    if path.name == "defaults.json":
        return list(read_defaults(content, source))
    return [read_search(content, source)]


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's correlation; None for fewer than four pairs or a constant."""
    if len(pairs) < MIN_METHODS or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return None
    ranks = [rankdata(side) for side in zip(*pairs, strict=True)]
    return float(np.corrcoef(*ranks)[0, 1])


def with_interval(
    studies: Sequence[Study], statistic: Callable[[Sequence[Study]], float | None]
) -> Row:
    """Return a statistic with a percentile bootstrap interval over tasks."""
    by_task: dict[str, list[Study]] = {}
    for study in studies:
        by_task.setdefault(study.task, []).append(study)
    value = statistic(studies)
    row: Row = {"value": value, "interval": None, "tasks": len(by_task), "studies": len(studies)}
    if value is None or len(by_task) < MIN_TASKS:
        return row
    generator = np.random.default_rng(0)
    values = []
    for _ in range(NUM_SAMPLES):
        drawn = generator.choice(len(by_task), len(by_task))
        groups = list(by_task.values())
        sample = [study for index in drawn for study in groups[index]]
        if (one := statistic(sample)) is not None:
            values.append(one)
    row["interval"] = np.percentile(values, [2.5, 97.5]).tolist()
    return row


def task_correlations(studies: Sequence[Study], outcome: str) -> dict[str, Row]:
    """Return the correlation of each signal of a task with a gain over studies.

    Args:
        studies: finished studies.
        outcome: ``kd``, or ``soft``: gain of ``kd`` minus gain of ``pseudo_labels``. Studies
            without ``kd`` have the gain of the recipe's own method.
    """

    def target(study: Study) -> float | None:
        gain = study.gains.get("kd", study.gains.get("recipe"))
        hard = study.gains.get("pseudo_labels") if outcome == "soft" else 0.0
        return None if gain is None or hard is None else gain - hard

    rows = {}
    for signal in TASK_SIGNALS:
        own = [
            study
            for study in studies
            if study.signals.get(signal) is not None and target(study) is not None
        ]

        def correlation(sample: Sequence[Study], name: str = signal) -> float | None:
            pairs = [(study.signals[name], target(study) or 0.0) for study in sample]
            return rank_correlation(pairs)

        if own:
            rows[signal] = with_interval(own, correlation)
    return rows


def method_correlations(studies: Sequence[Study]) -> dict[str, Row]:
    """Return the mean correlation of each signal of a method with its gain within a study."""
    rows = {}
    for signal in METHOD_SIGNALS:

        def within(study: Study, name: str = signal) -> float | None:
            pairs = []
            for method in study.methods:
                value = features_of(method, study.method_signals.get(method)).get(name)
                if value is not None:
                    pairs.append((value, study.gains[method]))
            return rank_correlation(pairs)

        values = {id(study): within(study) for study in studies}

        def mean(sample: Sequence[Study], values: Mapping[int, Any] = values) -> float:
            return float(np.mean([values[id(study)] for study in sample]))

        own = [study for study in studies if values[id(study)] is not None]
        if own:
            rows[signal] = with_interval(own, mean)
    return rows


def ranks_of(study: Study) -> dict[str, float]:
    """Return the rank of the gain of each method, from -1 (smallest) to 1 (largest)."""
    methods = study.methods
    ranks = rankdata([study.gains[method] for method in methods])
    return {
        method: float(2 * (rank - 1) / (len(methods) - 1) - 1)
        for method, rank in zip(methods, ranks, strict=True)
    }


def fit(studies: Sequence[Study], groups: Sequence[str]) -> Row:
    """Fit a ridge regression of ranks within studies.

    Args:
        studies: training studies.
        groups: groups of features: ``signals``, ``kind`` and ``method``.

    Returns:
        ``means`` of the signals and ``coefficients`` of all features.
    """
    rows = []
    targets = []
    for study in studies:
        for method, rank in ranks_of(study).items():
            rows.append(features_of(method, study.method_signals.get(method)))
            targets.append(rank)
    names = sorted({name for row in rows for name in row})
    names = [name for name in names if group_of(name) in groups]
    means = {}
    for name in METHOD_SIGNALS:
        values = [row[name] for row in rows if name in row]
        if values:
            means[name] = float(np.mean(values))
    matrix = np.zeros((len(rows), len(names)))
    for index, row in enumerate(rows):
        for column, name in enumerate(names):
            # A missing signal has its mean.
            matrix[index, column] = row[name] - means.get(name, 0.0) if name in row else 0.0
    gram = matrix.T @ matrix + RIDGE * np.eye(len(names))
    solution = np.linalg.solve(gram, matrix.T @ np.array(targets))
    return {
        "means": {name: value for name, value in means.items() if name in names},
        "coefficients": {name: float(value) for name, value in zip(names, solution, strict=True)},
    }


def group_of(name: str) -> str:
    """Return the group of a feature."""
    return name.partition(":")[0] if ":" in name else "signals"


def predict(model: Mapping[str, Any], study: Study) -> dict[str, float]:
    """Return the predicted rank of each method of a study."""
    predictions = {}
    for method in study.methods:
        total = 0.0
        for name, value in features_of(method, study.method_signals.get(method)).items():
            centred = value - model["means"].get(name, 0.0)
            total += model["coefficients"].get(name, 0.0) * centred
        predictions[method] = total
    return predictions


def leave_one_task_out(studies: Sequence[Study], groups: Sequence[str]) -> Row:
    """Return errors of the model on tasks that it was not fitted on."""
    tasks = list(dict.fromkeys(study.task for study in studies))
    results = []
    for task in tasks:
        model = fit([study for study in studies if study.task != task], groups)
        for study in studies:
            if study.task == task:
                results.append(scored(study, predict(model, study)))
    keys = ("correlation", "squared_error", "best_in_half", "regret_of_half", "random_regret")
    row: Row = {"tasks": len(tasks), "studies": len(results)}
    for key in keys:
        values = [result[key] for result in results if result[key] is not None]
        row[key] = float(np.mean(values)) if values else None
    if row["squared_error"] is not None:
        row["rmse"] = row.pop("squared_error") ** 0.5
    return row


def scored(study: Study, predictions: Mapping[str, float]) -> Row:
    """Return the errors of the predicted order of the methods of a study."""
    ranks = ranks_of(study)
    methods = sorted(predictions, key=lambda method: -predictions[method])
    half = methods[: math.ceil(len(methods) / 2)]
    best = max(ranks, key=lambda method: ranks[method])
    gains = sorted((study.gains[method] for method in methods), reverse=True)
    return {
        "correlation": rank_correlation([(predictions[m], ranks[m]) for m in methods]),
        "squared_error": float(np.mean([(predictions[m] - ranks[m]) ** 2 for m in methods])),
        "best_in_half": float(best in half),
        "regret_of_half": gains[0] - max(study.gains[method] for method in half),
        "random_regret": gains[0] - _expected_best(gains, len(half)),
    }


def _expected_best(gains: Sequence[float], size: int) -> float:
    """Return the expected best gain of a random subset; ``gains`` fall."""
    total = math.comb(len(gains), size)
    chances = [math.comb(len(gains) - 1 - i, size - 1) / total for i in range(len(gains))]
    return sum(chance * gain for chance, gain in zip(chances, gains, strict=True))


def sources_of(studies: Sequence[Study]) -> list[Row]:
    """Return name, file and number of methods of each study."""
    return [
        {"study": one.name, "source": one.source, "methods": len(one.methods)} for one in studies
    ]


def evaluate(studies: Sequence[Study]) -> Row:
    """Return correlations of all signals and errors of the models."""
    ordered = [study for study in studies if len(study.methods) >= MIN_METHODS]
    models: dict[str, Row] = {}
    combinations = {
        "signals": ("signals",),
        "kind": ("kind",),
        "kind and method": ("kind", "method"),
        "all": ("signals", "kind", "method"),
    }
    if len({study.task for study in ordered}) >= 2:
        models = {name: leave_one_task_out(ordered, one) for name, one in combinations.items()}
    return {
        "torch": torch.__version__,
        "sources": sources_of(studies),
        "gain_of_kd": task_correlations(studies, "kd"),
        "gain_of_soft_over_hard": task_correlations(studies, "soft"),
        "within_studies": method_correlations(ordered),
        "leave_one_task_out": models,
    }


def class_studies(studies: Sequence[Study]) -> list[Study]:
    """Return the studies with an order of methods whose labels are classes."""
    ordered = [study for study in studies if len(study.methods) >= MIN_METHODS]
    return [study for study in ordered if study.task not in OTHER_KINDS]


def finished_studies(further: Sequence[Path] = ()) -> list[Study]:
    """Return the studies of this folder, and further ones, which replace those of their name.

    Args:
        further: files or folders of searches.
    """
    folders = (HERE / "modalities", HERE / "proof/exhaustive")
    own = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    files = [*own, HERE / "methods.json", HERE / "defaults.json", *further]
    # A search has the signals that its summary may lack.
    by_name = {study.name: study for path in files for study in read(path)}
    return list(by_name.values())


def shipped_model(studies: Sequence[Study], groups: Sequence[str]) -> Row:
    """Return the model of all tasks, with its sources and its error on left-out tasks."""
    ordered = class_studies(studies)
    model = fit(ordered, groups)
    model["coefficients"] = {key: round(value, 4) for key, value in model["coefficients"].items()}
    return {
        "sources": sources_of(ordered),
        "kinds": list(CLASS_KINDS),
        "leave_one_task_out": leave_one_task_out(ordered, groups),
        **model,
    }


def main() -> None:
    """Evaluate the signals of the studies of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="*", type=Path, metavar="STUDY")
    parser.add_argument("--json", type=Path, help="file of the result")
    parser.add_argument("--model", type=Path, help="file of the coefficients of the model")
    options = parser.parse_args()
    studies = finished_studies(options.studies)
    result = evaluate(studies)
    print(json.dumps(result, indent=1))
    if options.json:
        write_json(options.json, result)
    if options.model:
        write_json(options.model, shipped_model(studies, ("signals", "kind", "method")))


if __name__ == "__main__":
    catalogue.kinds()
    main()
