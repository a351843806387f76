"""What ``predict`` returns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a call went, in seconds.

    Attributes:
        total: the whole call as the caller saw it, the network, the split and the retries included.
        queue: waiting in the server; of a call in several requests the longest, since they wait side by side.
            None where the server does not tell.
        compute: the model's own time; of a call in several requests the sum. None where the server does not
            tell.
    """

    total: float
    queue: float | None = None
    compute: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The classes of N images, in the order in which they were given; N is 1 for a single image.

    Attributes:
        classes: int64 [N].
        probabilities: floats [N, classes]; the model's scores as they are, where it does not end in a
            softmax.
        timing: where the time went.
        version: the model version that answered. Where a new version took over in the midst of a call that
            was split, all that answered, as in ``"3,4"``.
    """

    classes: NDArray[np.int64]
    probabilities: NDArray[np.floating]
    timing: Timing
    version: str

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def label(self) -> int:
        """The class of a single image.

        Raises:
            ValueError: there are several, or none.
        """
        if len(self.classes) != 1:
            raise ValueError(f"label is for one image, and these are {len(self.classes)}: use classes")
        return int(self.classes[0])
