"""What ``explain`` returns, and how it is drawn."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from horngate_client import given
from horngate_client.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from PIL import Image

LARGE_GAP = 0.1
"""Attributions that miss more of the difference than this are not to be trusted."""
_FOR, _AGAINST, _OUTLINE = np.array([200, 30, 40]), np.array([30, 80, 200]), np.array([90, 90, 90])


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Which parts of N images speak for a class, and which against it, in the order in which they were given.

    Attributes:
        attributions: float32 [N, ...], of the images' shape; a row's sum is its score less its baseline's, but for
            its gap.
        target: int64 [N], the class that is explained.
        scores: float32 [N], what the model gives it.
        baseline_scores: float32 [N], what it gives it where there is nothing to see.
        gaps: float32 [N], what the attributions miss of the difference.
        images: [N, ...], as the model saw them.
        version: the model version that answered.
    """

    attributions: NDArray[np.float32]
    target: NDArray[np.int64]
    scores: NDArray[np.float32]
    baseline_scores: NDArray[np.float32]
    gaps: NDArray[np.float32]
    images: NDArray[Any]
    version: str

    def __len__(self) -> int:
        return len(self.target)

    @property
    def strengths(self) -> NDArray[np.float32]:
        """Return [N, H, W] from -1 to 1: for the class, against it; 1 is the strongest of its image."""
        flat = self.attributions if self.attributions.ndim == 3 else self.attributions.sum(axis=-1)
        strongest = np.abs(flat).max(axis=(1, 2), keepdims=True)
        strengths: NDArray[np.float32] = np.divide(flat, strongest, out=np.zeros_like(flat), where=strongest > 0)
        return strengths

    def to_image(self, *, scale: int = 10) -> "Image.Image":
        """Draw them side by side: red speaks for the class, blue against it; the outline is the image's.

        Args:
            scale: pixels for each of the image's.

        Raises:
            MissingExtra: Pillow is not installed.
            ConversionError: the scale is no whole number.
            ConfigurationError: it is less than 1.
        """
        given.whole("scale", scale, "10")
        if scale < 1:
            raise ConfigurationError(f"scale is at least 1, not {scale}")
        try:
            from PIL import Image  # noqa: PLC0415 - an optional package, loaded only for pictures
        except ImportError as exc:
            raise MissingExtra("pictures need Pillow: pip install 'horngate[images]'") from exc
        grey = self.images if self.images.ndim == 3 else self.images.mean(axis=-1)
        drawn = [_draw(strength, image, scale) for strength, image in zip(self.strengths, grey, strict=True)]
        space = np.full((drawn[0].shape[0], scale, 3), 255, np.uint8)
        parts = [part for each in drawn for part in (space, each)][1:]
        return Image.fromarray(np.concatenate(parts, axis=1))


# --- private ------------------------------------------------------------------------------------------------


def _draw(strengths: NDArray[np.float32], image: NDArray[Any], scale: int) -> NDArray[np.uint8]:
    """Return [H * scale, W * scale, 3]."""
    block = np.ones((scale, scale))
    share = np.kron(np.abs(strengths), block)[..., None]
    colour = np.where(np.kron(strengths, block)[..., None] > 0, _FOR, _AGAINST)
    drawn = 255 + share * (colour - 255)
    middle = (float(image.min()) + float(image.max())) / 2
    shown = np.pad(np.kron(image > middle, block) > 0, 1, mode="edge")
    inside = shown[1:-1, 1:-1]
    around = [shown[:-2, 1:-1], shown[2:, 1:-1], shown[1:-1, :-2], shown[1:-1, 2:]]
    edge = inside & ~np.logical_and.reduce(around)
    drawn[edge] = _OUTLINE
    pixels: NDArray[np.uint8] = drawn.round().astype(np.uint8)
    return pixels
