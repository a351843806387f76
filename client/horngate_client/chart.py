"""Probabilities and images as text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SHADES = " .:-=+*#%@"
_BLOCKS = " ▀▄█"
_LEVELS = (-0.4, -0.1, 0.1, 0.4)


def bars(probabilities: Sequence[float], *, width: int = 30, most: int = 10, unicode: bool = True) -> list[str]:
    """Return a line for each class, in the order of the classes; of many classes the ``most`` likely, those first."""
    shares = np.asarray(probabilities, dtype=np.float64)
    chosen = np.arange(len(shares)) if len(shares) <= most else np.argsort(-shares, kind="stable")[:most]
    digits = len(str(len(shares) - 1))
    return [
        f"{index:>{digits}} {_bar(float(shares[index]), width, unicode=unicode)} {_percent(float(shares[index]))}"
        for index in chosen.tolist()
    ]


def picture(image: NDArray[np.uint8], *, unicode: bool = True) -> list[str]:
    """Draw a grey image: two rows of pixels in a line of half blocks, or shades where only ASCII is at hand."""
    if image.ndim != 2:
        return []
    if not unicode:
        return ["".join(_SHADES[pixel * len(_SHADES) // 256] for pixel in row) for row in image.tolist()]
    lit = np.pad(image, ((0, image.shape[0] % 2), (0, 0))) > 96
    return ["".join(_BLOCKS[cell] for cell in row) for row in (lit[0::2] + 2 * lit[1::2]).tolist()]


def heat(strengths: NDArray[np.floating], *, colour: bool = False) -> list[str]:
    """Draw what speaks for a class and what against it, from -1 to 1: two characters for each pixel.

    In colours, red is for and blue against; without, ``#`` and ``+`` are for, ``=`` and ``-`` against.
    """
    if not colour:
        marks = np.array(list("=- +#"))
        levels = np.digitize(strengths, _LEVELS)
        return ["".join(2 * mark for mark in marks[row]).rstrip() for row in levels]
    return ["".join(map(_cell, row)) + "\x1b[0m" for row in strengths.tolist()]


# --- private ---------------------------------------------------------------------------------------------


def _bar(share: float, width: int, *, unicode: bool) -> str:
    share = min(max(share, 0.0), 1.0) if np.isfinite(share) else 0.0
    if not unicode:
        return ("#" * round(share * width)).ljust(width)
    full, part = divmod(round(share * width * 8), 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width)


def _percent(share: float) -> str:
    return f"{share:6.1%}" if 0 <= share <= 1 else f"{share:.4g}"


def _cell(strength: float) -> str:
    rest = round(255 * (1 - min(1.0, abs(strength))))
    red, green, blue = (255, rest, rest) if strength > 0 else (rest, rest, 255)
    return f"\x1b[48;2;{red};{green};{blue}m  "
