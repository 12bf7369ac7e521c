"""Names of arms and metrics for readers of a report."""

from __future__ import annotations

ARM_NAMES = {
    "teacher": "Teacher",
    "alone": "Student alone",
    "label_smoothing": "Label smoothing",
    "pseudo_labels": "Pseudo-labels",
    "noise": "White noise",
    "blobs": "Smooth noise",
    "distilled": "Distilled student",
}
"""Names of trained models, in the order of the rows of a table."""
METRIC_NAMES = {
    "accuracy": "accuracy",
    "ece": "calibration error",
    "miou": "mIoU",
    "auc": "AUC",
    "auroc": "AUROC",
    "map": "mAP",
    "iou": "mean IoU",
    "r2": "R²",
    "pck": "share of correct keypoints",
    "delta1": "share of pixels within 1.25",
    "abs_rel": "relative error",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "mrr": "MRR",
    "bits_per_byte": "bits per byte",
    "fgsm": "accuracy under FGSM",
    "frechet_distance": "Fréchet distance",
    "macro_f1": "macro F1",
    "keypoint_average_precision": "AP",
    "keypoint_average_recall": "AR",
    "mean_average_precision": "mAP",
    "pgd": "accuracy under PGD",
    "seconds_per_image": "seconds per image",
    "teacher_same_steps": "Fréchet distance of the teacher with these steps",
}


def display_name(key: str) -> str:
    """Name of an arm or a metric.

    Example:
        >>> display_name("alone"), display_name("miou"), display_name("top_5")
        ('Student alone', 'mIoU', 'top 5')
    """
    return ARM_NAMES.get(key) or METRIC_NAMES.get(key) or key.replace("_", " ")


def display_title(key: str) -> str:
    """Name of an arm or a metric with an initial capital, as a heading.

    Example:
        >>> display_title("accuracy"), display_title("miou")
        ('Accuracy', 'mIoU')
    """
    name = display_name(key)
    has_own_case = name[:2] != name[:2].lower()
    return name if has_own_case else name[:1].upper() + name[1:]


def enumeration(names: list[str]) -> str:
    """Names in a sentence, with commas and a final "and".

    Example:
        >>> enumeration(["label smoothing", "white noise", "pseudo-labels"])
        'label smoothing, white noise and pseudo-labels'
    """
    first = ", ".join(names[:-1])
    return f"{first} and {names[-1]}" if first else "".join(names)
