"""How much memory a training needs, estimated before anything is allocated, and how much there is.

The factors were measured as resident memory at the peak, on a CPU, and are a little above it: an estimate that is a
little too high asks for a larger machine, one that is too low has the kernel kill the trainer without a word.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

from horngate_protos import control_groups
from horngate_trainer.errors import TooLargeError

TENSORFLOW_BYTES = 650 << 20
"""Python, TensorFlow, Keras and matplotlib before any data."""
SPAN_BYTES = 64 << 20
"""So many bytes of images, or one batch, are gathered for TensorFlow at a time."""
ROWS, CHUNK_BYTES = 1000, 64 << 20
"""So many images at most, with so many bytes of activations, are computed at once where nothing is learnt."""
EXAMPLE_ROWS, EXAMPLE_BYTES = 4096, 256 << 20
"""So many test images at most stand for all: a few are recorded, and their mean may be where explanations begin."""
CONFUSION_BYTES = 80
"""Of an entry of the confusion matrix: counts, shares, picture, and what evaluation.json is made of."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a data set is.

    Attributes:
        train: images to train on.
        test: images to test on.
        image_shape: [height, width] or [height, width, channels].
        classes: how many there are, as far as that is known.
        loading_bytes: what is held at most while it is loaded.
        streamed: images stay where they are, and are read as they are needed.
    """

    train: int
    test: int
    image_shape: tuple[int, ...]
    classes: int
    loading_bytes: int
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """What a training needs, in bytes: its data, the network with its optimizer, and one step."""

    data: int
    network: int
    step: int

    @property
    def total(self) -> int:
        """All of it, TensorFlow included."""
        return TENSORFLOW_BYTES + self.data + self.network + self.step


def rows_at_once(image_shape: Sequence[int]) -> int:
    """Return how many images are computed at once where nothing is learnt."""
    return max(1, min(ROWS, CHUNK_BYTES // (4 * 16 * prod(image_shape))))


def example_rows(image_shape: Sequence[int]) -> int:
    """Return how many test images stand for all."""
    return max(1, min(EXAMPLE_ROWS, EXAMPLE_BYTES // prod(image_shape)))


def parameters(architecture: str, image_shape: Sequence[int], classes: int) -> int:
    """Return how many weights a network has (`architectures.build`)."""
    if architecture == "mlp":
        return prod(image_shape) * 128 + 128 + 129 * classes
    height, width, channels = *image_shape[:2], image_shape[2] if len(image_shape) > 2 else 1
    convolutions = 9 * (channels * 16 + 16 * 32 + 32 * 32 + 32 * 64) + 4 * (16 + 32 + 32 + 64)
    flat = max(0, (height - 2) // 4) * max(0, (width - 2) // 4) * 64
    return convolutions + (flat + 1) * classes


def need(size: Size, architecture: str, batch: int, *, report: bool) -> Need:
    """Estimate what a training needs.

    Args:
        size: of the data.
        architecture: ``mlp`` or ``cnn``.
        batch: images in a step.
        report: whether one is drawn.
    """
    pixels = prod(size.image_shape)
    batch = min(batch, size.train)
    images, spans = (size.train + size.test) * pixels, 2
    if size.streamed:  # the examples alone are held; while a span is computed, the next one is read
        images, spans = min(size.test, example_rows(size.image_shape)) * pixels, 4
    span = min(size.train * pixels, max(SPAN_BYTES, batch * pixels))
    # Per image: pixels as bytes and as floats; the cnn keeps the outputs of its layers until it goes back through them.
    activations = 5 * pixels if architecture == "mlp" else 5 * pixels + 500 * prod(size.image_shape[:2])
    answers = size.test * size.classes * 12
    confusion = size.classes**2 * (CONFUSION_BYTES if report else 8)
    # Each weight has two moments; while learning a gradient, too, and a checkpoint is a copy of all three.
    weights = 4 * parameters(architecture, size.image_shape, size.classes)
    return Need(
        data=max(images + 8 * (size.train + size.test), size.loading_bytes) + answers + confusion,
        network=3 * weights,
        step=max(weights + spans * span + batch * activations, 3 * weights),
    )


def check(size: Size, architecture: str, batch: int, *, report: bool, root: Path = Path("/")) -> str:
    """Hold what a training needs against what there is.

    Returns:
        What it needs and what there is, in a line.

    Raises:
        TooLargeError: there is not enough; the text says what needs how much.
    """
    wanted, there = need(size, architecture, batch, report=report), available_bytes(root)
    shape, kept = "x".join(map(str, size.image_shape)), ", which are read as they are needed" * size.streamed
    if there is not None and wanted.total > there:
        raise TooLargeError(
            f"{size.train} + {size.test} images of {shape} need about {_gb(wanted.total)} of memory in training "
            f"({_gb(wanted.data)} for the data{kept}, {_gb(wanted.network)} for the network, {_gb(wanted.step)} for a "
            f"step of {min(batch, size.train)} images), and {_gb(there)} are free here: use fewer or smaller images, "
            "or a machine (or a container's limit) with more memory"
        )
    free = "" if there is None else f" of {_gb(there)} that are free"
    return f"memory    about {_gb(wanted.total)}{free}, for {size.train} + {size.test} images of {shape}{kept}"


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process can still get: the machine's, or less where a control group says so.

    Args:
        root: for tests; where ``proc`` and ``sys`` are.

    Returns:
        None where nothing says how much there is.
    """
    return min(_free(root), default=None)


# --- private ---------------------------------------------------------------------------------------------------------


def _free(root: Path) -> Iterator[int]:
    with suppress(OSError, KeyError):
        yield _numbers(root / "proc/meminfo")["MemAvailable:"] << 10
    for group, unified in control_groups.groups(root, "memory"):
        limit, usage, cache = _UNIFIED if unified else _VERSION_1
        with suppress(OSError, ValueError, KeyError):  # "max" is no limit
            used = int((group / usage).read_text()) - _numbers(group / "memory.stat")[cache]
            yield max(0, int((group / limit).read_text()) - max(0, used))


_UNIFIED = ("memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""The names of limit, usage and idle file cache."""


def _numbers(file: Path) -> dict[str, int]:
    """Read lines of a name and a number."""
    words = [line.split() for line in file.read_text().splitlines()]
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdigit()}


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
