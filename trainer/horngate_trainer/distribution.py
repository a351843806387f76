"""Training on several devices, or machines: what each computes, and what the chief tells the others.

`tf.distribute` keeps a copy of the variables on each device (a replica), and adds the replicas' gradients up, so that
all copies stay the same. Every process that takes part runs the same code in the same order: what goes between them
(`Workers.told`, a step of the training) is waited for by all.
"""

import faulthandler
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.eager import context  # no public name leads to what the coordination service keeps

from horngate_trainer.clusters import ALONE, Cluster
from horngate_trainer.errors import WorkersError, first_line

JOIN_SECONDS = 600
"""So long the processes of a training wait for each other at its beginning: images are pulled, nodes are added."""

PART_SECONDS = 30
"""So long a process waits at its end for each of the others to have the last of what they did together."""


class Workers:
    """Those who train together; one device of one process, where nothing else was asked for.

    Args:
        strategy: TensorFlow's.
        cluster: the processes, and which of them this is.

    Attributes:
        replicas: how many devices compute, in all processes.
        local: the numbers of those of this process.
    """

    def __init__(self, strategy: Any = None, cluster: Cluster = ALONE) -> None:
        self.strategy = strategy or tf.distribute.get_strategy()
        self.cluster = cluster
        self.replicas = int(self.strategy.num_replicas_in_sync)
        self.local: list[int] = []

        def note(replica: int) -> Any:
            self.local.append(replica)
            return tf.constant(0)

        self.each(note)

    @property
    def chief(self) -> bool:
        """Whether this process keeps checkpoints, and exports."""
        return self.cluster.chief

    def each(self, make: Callable[[int], Any]) -> Any:
        """Return what ``make`` makes for each replica of this process, by its number among all."""
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: make(int(context.replica_id_in_sync_group))
        )

    def told(self, message: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the chief's message; the others' own are left aside. All wait for it.

        Args:
            message: what JSON can hold.

        Raises:
            WorkersError: another process has failed.
        """
        text = np.frombuffer(json.dumps(message).encode(), np.uint8)
        (size,) = self.copied([np.array(len(text))])
        (whole,) = self.copied([text if self.chief else np.zeros(int(size), np.uint8)])
        found: dict[str, Any] = json.loads(whole.tobytes())
        return found

    def copied(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Return the chief's arrays; the others' have the same shapes. All wait for them.

        Raises:
            WorkersError: another process has failed.
        """
        if not self.cluster.several:
            return list(arrays)

        def given(replica: int) -> list[Any]:  # as float64, which holds every number that comes, and NCCL adds
            return [tf.constant(each if replica == 0 else np.zeros_like(each), tf.float64) for each in arrays]

        with self.together():
            sums = self._sum(self.each(given))
            local = [self.strategy.experimental_local_results(each)[0].numpy() for each in sums]
        return [value.astype(each.dtype).reshape(each.shape) for value, each in zip(local, arrays, strict=True)]

    def part(self) -> None:
        """Let go of the others, after the last thing that all did; nothing is to be done together afterwards.

        A sum is fetched from its neighbours, so who has it cannot know whether they have: a process that ended at once
        would fail those that still fetch. It stays until the chief says that everybody has it.
        """
        if not self.cluster.several:
            return
        others = range(1, len(self.cluster.addresses))
        with suppress(tf.errors.OpError):  # whatever has happened to the others, this one's work is done
            if self.chief:
                for index in others:
                    self._wait_for(f"{index} has it")
                self._post("all have it")
                for index in others:  # this word, too, is fetched from the chief
                    self._wait_for(f"{index} leaves")
            else:
                self._post(f"{self.cluster.index} has it")
                self._wait_for("all have it")
                self._post(f"{self.cluster.index} leaves")

    @contextmanager
    def together(self) -> Iterator[None]:
        """What runs here needs all processes.

        Raises:
            WorkersError: another one has failed, or cannot be reached; TensorFlow notices within seconds.
        """
        try:
            yield
        except tf.errors.OpError as exc:
            if not self.cluster.several or not isinstance(exc, _LOST):
                raise
            raise WorkersError(
                f"another worker has failed, or cannot be reached ({first_line(exc)[:300]}): its own log says why; "
                "start all again with --resume, which goes on after the last finished epoch"
            ) from exc

    # --- private ----------------------------------------------------------------------------------------------------

    def _post(self, word: str) -> None:
        context.context().set_config_key_value(word, "yes")

    def _wait_for(self, word: str) -> None:
        context.context().get_config_key_value(word, timeout_in_ms=1000 * PART_SECONDS)

    def _sum(self, values: Any) -> Any:
        def add(*each: Any) -> Any:
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, list(each))

        return tf.function(lambda: self.strategy.run(add, args=tuple(values)), autograph=False)()


def join(name: str, cluster: Cluster = ALONE, say: Callable[[str], None] = lambda _: None) -> Workers:
    """Begin to train together; with several processes, wait for all of them.

    TensorFlow wants to know before it computes anything.

    Args:
        name: ``none``, ``mirrored`` or ``multi-worker``.
        cluster: for ``multi-worker``.
        say: told who is there.

    Raises:
        WorkersError: the others cannot be reached. Where they do not come in `JOIN_SECONDS`, TensorFlow's native code
            still waits, and the process ends with exit code 1; what was said before says why.
    """
    if name == "none":
        return Workers()
    if name == "mirrored":
        workers = Workers(tf.distribute.MirroredStrategy())
        say(f"strategy  mirrored: {workers.replicas} device{'s' * (workers.replicas != 1)}")
        return workers
    who = f"worker {cluster.index + 1} of {len(cluster.addresses)}{' (chief)' if cluster.chief else ''}"
    say(
        f"strategy  multi-worker: {who}, waits for the others; if they do not come in {JOIN_SECONDS} s, it ends, failed"
    )
    with _bounded(JOIN_SECONDS):
        try:
            workers = Workers(tf.distribute.MultiWorkerMirroredStrategy(), cluster)
        except (tf.errors.OpError, RuntimeError, ValueError) as exc:
            raise WorkersError(f"cannot train with {', '.join(cluster.addresses)}: {first_line(exc)}") from exc
        workers.told({})
    say(f"strategy  multi-worker: all are there, with {workers.replicas} devices")
    return workers


# --- private ---------------------------------------------------------------------------------------------------------

_LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
    tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError, tf.errors.UnknownError,
)  # fmt: skip


@contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    """End the process with exit code 1 if this takes longer.

    TensorFlow waits in native code and holds Python's lock meanwhile: no thread of Python runs, and no signal handler.
    """
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
