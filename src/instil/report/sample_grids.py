"""Images that the networks of a run generate, next to real ones."""

from __future__ import annotations

import re
from html import escape

from instil.report.record import Record

BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def sample_grids(record: Record) -> str:
    """Section with a grid of generated images for each network.

    Returns:
        HTML; empty for a run without generated images.
    """
    grids = []
    for arm in record.arms:
        picture = record.get("details", arm, "samples")
        if _is_picture(picture):
            grids.append(_figure(record.arm_name(arm), picture))
    if not grids:
        return ""
    arm = next(arm for arm in record.arms if _is_picture(record.get("details", arm, "samples")))
    real = record.get("details", arm, "real_samples")
    if _is_picture(real):
        grids.append(_figure("Test images", real))
    features = escape(str(record.get("details", arm, "features") or "unknown features"))
    return (
        '<div class="samples"><h3>Generated images</h3>'
        "<p>All networks start from the same noise. The Fréchet distance, precision, recall and "
        f"coverage are computed in {features}. They do not compare with published values of FID."
        f'</p><div class="pair">{"".join(grids)}</div></div>'
    )


def _is_picture(value: object) -> bool:
    return isinstance(value, str) and BASE64.fullmatch(value) is not None


def _figure(title: str, picture: str) -> str:
    name = escape(title)
    return (
        f'<figure><img src="data:image/png;base64,{picture}" alt="{name}: images in rows of eight">'
        f"<figcaption>{name}</figcaption></figure>"
    )
