"""Metrics, sizes, times and counts as text, for the report page and the terminal.

Values and units are joined by a narrow no-break space, and thousands are separated by one. Use
``plain`` for the terminal.
"""

from __future__ import annotations

NUMBERS = (
    "perplexity",
    "bits_per_byte",
    "frechet_distance",
    "teacher_same_steps",
    "density",
    "distance",
    "mae",
    "rmse",
    "steps",
    "seconds_per_image",
)
"""Metrics that are not fractions of one, and are not shown in percent."""
NARROW = "\N{NARROW NO-BREAK SPACE}"
NO_BREAK = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = f"{NO_BREAK}±{NO_BREAK}"
MISSING = "\N{EN DASH}"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PLAIN = str.maketrans({NARROW: " ", NO_BREAK: " ", MINUS: "-"})


def plain(text: str) -> str:
    """Replace typographic spaces and minus signs by those of ASCII.

    Example:
        >>> plain(size(19872))
        '19.9 kB'
    """
    return text.translate(PLAIN)


def decimals(value: float) -> int:
    """Number of decimals that leaves four significant digits, at most three.

    Example:
        >>> decimals(1.2345), decimals(709.2)
        (3, 1)
    """
    # str(int(x)) of a huge value is long, and of an infinite one an error.
    whole_digits = len(str(int(abs(value)))) if abs(value) < 1e15 else 16
    return max(0, min(3, 4 - whole_digits))


def amount(
    value: float | None, is_fraction: bool = True, digits: int | None = None, unit: bool = True
) -> str:
    """Value of a metric.

    Args:
        value: None gives a dash.
        is_fraction: show percent with one decimal; otherwise four significant digits.
        digits: decimals. None: as described for ``is_fraction``.
        unit: add the percent sign.

    Example:
        >>> plain(amount(0.951)), plain(amount(1.2345, is_fraction=False))
        ('95.1 %', '1.234')
    """
    if value is None:
        return MISSING
    if is_fraction:
        text = f"{100 * value:.{1 if digits is None else digits}f}"
    else:
        text = f"{value:,.{decimals(value) if digits is None else digits}f}".replace(",", NARROW)
    percent = f"{NARROW}%" if is_fraction and unit else ""
    return text.replace("-", MINUS) + percent


def spread(value: float | None, std: float | None, is_fraction: bool = True) -> str:
    """Mean and standard deviation of a metric.

    Args:
        value: mean over seeds; None gives a dash.
        std: standard deviation; None leaves it out.
        is_fraction: show percent.

    Example:
        >>> plain(spread(0.951, 0.0042))
        '95.1 % ± 0.4'
    """
    mean = amount(value, is_fraction)
    if value is None or std is None:
        return mean
    return f"{mean}{PLUS_MINUS}{amount(std, is_fraction, unit=False)}"


def points(value: float | None, is_fraction: bool = True, sign: bool = True) -> str:
    """Difference of two metrics, without a unit.

    Args:
        value: None gives a dash.
        is_fraction: show percentage points.
        sign: mark a positive difference by a plus sign.

    Example:
        >>> points(0.123)
        '+12.3'
    """
    text = amount(value, is_fraction, unit=False)
    is_positive = value is not None and value > 0
    return f"+{text}" if sign and is_positive else text


def size(num_bytes: float | None) -> str:
    """Number of bytes in the largest unit that leaves at least one digit before the point."""
    if num_bytes is None:
        return MISSING
    if num_bytes < 999.5:
        return f"{num_bytes:.0f}{NARROW}B"
    for unit in ("kB", "MB"):
        num_bytes /= 1000
        if num_bytes < 99.95:
            return f"{num_bytes:.1f}{NARROW}{unit}"
        if num_bytes < 999.5:
            return f"{num_bytes:.0f}{NARROW}{unit}"
    return f"{num_bytes / 1000:.1f}{NARROW}GB"


def milliseconds(value: float | None) -> str:
    """Latency with three significant digits."""
    if value is None:
        return MISSING
    text = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{text}{NARROW}ms"


def power_of_ten(value: float) -> str:
    """Small number as one digit times a power of ten.

    Example:
        >>> plain(power_of_ten(4.8e-7))
        '5 × 10⁻⁷'
    """
    if value == 0:
        return "0"
    digit, exponent = f"{value:.0e}".split("e")
    return f"{digit}{NARROW}×{NARROW}10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def duration(seconds: float | None) -> str:
    """Time in seconds, minutes or hours."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f}{NARROW}s"
    if seconds < 90:
        return f"{seconds:.0f}{NARROW}s"
    if seconds < 5400:
        return f"{seconds / 60:.0f}{NARROW}min"
    return f"{seconds / 3600:.1f}{NARROW}h"


def count(value: float | None) -> str:
    """Whole number with separated thousands."""
    return MISSING if value is None else f"{value:,.0f}".replace(",", NARROW)


def factor(ratio: float) -> str:
    """Ratio of two values.

    Example:
        >>> factor(20.4), factor(1.34)
        ('20×', '1.3×')
    """
    return f"{ratio:.0f}×" if ratio >= 9.95 else f"{ratio:.1f}×"
