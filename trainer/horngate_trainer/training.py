"""The fit: whole spans of steps run inside TensorFlow, so that Python costs nothing per batch.

Images stay in memory once, as they are on disk (uint8), or on the disk; what a span of steps needs is gathered for it.
Each epoch's order comes from the seed and the epoch's number alone, so that a resumed training sees what an
uninterrupted one would have seen. A batch is cut into the replicas' shares row by row (`share_of`): several devices see
the same batches as one.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from horngate_trainer import memory
from horngate_trainer.checkpoint import Checkpoint
from horngate_trainer.data import Dataset
from horngate_trainer.distribution import Workers
from horngate_trainer.errors import CheckpointError, WorkersError
from horngate_trainer.pixels import Images, Labels
from horngate_trainer.recipes import Recipe
from horngate_trainer.streamed import Streamed, ahead

SCALE = 255
SPANS = 12
"""How many times an epoch hands control back at least, for the progress bar and Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the training set achieved.

    Attributes:
        accuracy: share of right answers while training, dropout included.
        loss: mean cross-entropy of the batches while training, in nats.
        test_accuracy: share of right answers on the test set after it.
        test_loss: mean cross-entropy on the test set after it, in nats.
        seconds: what it took, the test included.
    """

    accuracy: float
    loss: float
    test_accuracy: float
    test_loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an epoch is.

    Attributes:
        epoch: its number, from 1.
        share: of its images, 0 to 1.
        accuracy: so far in this epoch.
        loss: so far in this epoch.
    """

    epoch: int
    share: float
    accuracy: float
    loss: float


_Labelled = tuple[Images | Streamed, Labels]


class Training:
    """A model on its way through its epochs. It is built under the seed, so that equal seeds give equal weights.

    Args:
        build: makes the model; called once, after the seed is set.
        dataset: checked data.
        recipe: batch size and learning rate.
        epochs: how many there are in all.
        seed: of weights, order and dropout.
        workers: who train together; one device, where nothing is said.

    Raises:
        WorkersError: there are more replicas than rows in a batch.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        dataset: Dataset,
        recipe: Recipe,
        *,
        epochs: int,
        seed: int,
        workers: Workers | None = None,
    ) -> None:
        self._workers = workers or Workers()
        if self._workers.replicas > recipe.batch_size:
            raise WorkersError(f"{self._workers.replicas} devices cannot share batches of {recipe.batch_size} images")
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()  # costs nothing measurable on a CPU, and runs repeat bit by bit
        self._build = build
        self.history: list[Epoch] = []
        self._epochs = epochs
        self._seed = seed
        self._batch = recipe.batch_size
        self._train = dataset.x_train, dataset.y_train
        self._test = dataset.x_test, dataset.y_test
        self._test_rows = memory.rows_at_once(dataset.image_shape)
        self._rows = len(dataset.x_train)
        self._steps = -(-self._rows // self._batch)
        self._spans = min(self._steps, max(SPANS, -(-dataset.x_train.nbytes // memory.SPAN_BYTES)))
        with self._workers.strategy.scope():
            self.model = build()
            decay = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, self._steps * epochs)
            self._optimizer = keras.optimizers.Adam(decay)
            self._optimizer.build(self.model.trainable_variables)
        traced: dict[str, Any] = {"reduce_retracing": True}  # several devices' values have no common specification
        if self._workers.strategy is tf.distribute.get_strategy():
            images = tf.TensorSpec([None, *dataset.image_shape], tf.uint8)
            labels, rows = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)
            traced = {"input_signature": [images, labels, rows]}
        self._fit = tf.function(self._span, autograph=False, **traced)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over the state of a checkpoint.

        Raises:
            CheckpointError: its variables are not this network's.
        """
        variables = self._variables()
        kept = [(tuple(value.shape), str(value.dtype)) for value in checkpoint.variables]
        if kept != [(tuple(variable.shape), str(variable.dtype)) for variable in variables]:
            raise CheckpointError("the checkpoint is of another network: train without --resume, which begins again")
        for variable, value in zip(variables, checkpoint.variables, strict=True):
            variable.assign(value)
        try:
            self.history = [Epoch(**epoch) for epoch in checkpoint.history]
        except TypeError as exc:
            raise CheckpointError(
                "the checkpoint was written by another version of the trainer: train without --resume"
            ) from exc

    def state(self) -> tuple[Sequence[dict[str, float]], Sequence[np.ndarray[Any, Any]]]:
        """Return history and variables for a checkpoint."""
        return [asdict(epoch) for epoch in self.history], [np.asarray(each) for each in self._variables()]

    def share(self) -> None:
        """Take over the chief's state, which has as many epochs behind it."""
        history, variables = self.state()
        self.restore(Checkpoint({}, history, self._workers.copied(variables)))

    def plain(self) -> Any:
        """Return the model as it is on one device, to be written."""
        if self._workers.replicas == 1:
            return self.model
        alone = self._build()
        alone.set_weights(self.model.get_weights())
        return alone

    def run(self, on_progress: Callable[[Progress], None]) -> Iterator[Epoch]:
        """Go through the epochs that are left; yields after each one, when the state is whole.

        Raises:
            WorkersError: another process of this training has failed.
        """
        for number in range(len(self.history), self._epochs):
            began = time.monotonic()
            order = self._order(tf.constant(number)).numpy()
            right, loss, done, seen = 0, 0.0, 0, 0
            spans = np.array_split(np.arange(self._steps), self._spans)
            rows = [order[span[0] * self._batch : (span[-1] + 1) * self._batch] for span in spans]
            for steps, count, (hits, losses) in zip(
                map(len, spans), map(len, rows), self._computed(self._fit, self._train, rows, self._batch), strict=True
            ):
                right, loss, done, seen = right + hits, loss + losses, done + steps, seen + count
                on_progress(Progress(number + 1, seen / self._rows, right / seen, loss / done))
            test_accuracy, test_loss = self._tested()
            epoch = Epoch(
                accuracy=right / self._rows,
                loss=loss / self._steps,
                test_accuracy=test_accuracy,
                test_loss=test_loss,
                seconds=time.monotonic() - began,
            )
            self.history.append(epoch)
            yield epoch

    # --- private ------------------------------------------------------------------------------------------------

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self._optimizer.variables]

    @tf.function(autograph=False)
    def _order(self, epoch: Any) -> Any:
        return tf.random.experimental.stateless_shuffle(tf.range(self._rows), [self._seed, epoch])

    def _computed(
        self, function: Any, data: _Labelled, parts: Sequence[npt.NDArray[Any]], batch: int
    ) -> Iterator[tuple[int, float]]:
        """Compute parts of the data in batches, by all replicas; yield each one's right answers, and sum of losses."""
        images, labels = data
        workers = self._workers

        def read(rows: npt.NDArray[Any]) -> Mapping[int, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
            mine = {each: rows[share_of(each, len(rows), batch, workers.replicas)] for each in workers.local}
            return {replica: (images[places], labels[places]) for replica, places in mine.items()}

        calls = (partial(read, rows) for rows in parts)
        shares = ahead(calls) if isinstance(images, Streamed) else (call() for call in calls)
        for rows, share in zip(parts, shares, strict=True):
            given = workers.each(lambda replica: tuple(tf.constant(each) for each in share[replica]))  # noqa: B023
            with workers.together():
                hits, losses = function(*given, tf.constant(len(rows)))
            yield int(hits), float(losses)

    def _span(self, images: Any, labels: Any, rows: Any) -> Any:
        """Train on these, batch by batch; returns right answers and the sum of the batches' losses."""
        strategy, replicas = self._workers.strategy, self._workers.replicas

        def one(images: Any, labels: Any, number: Any) -> Any:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            mine = (self._batch - replica + replicas - 1) // replicas  # of a whole batch
            first = number * mine
            whole = tf.minimum(self._batch, rows - number * self._batch)
            return self._step(images[first : first + mine], labels[first : first + mine], whole)

        def step(number: Any, right: Any, losses: Any) -> Any:
            hits, loss = self._added(strategy.run(one, args=(images, labels, number)))
            return number + 1, right + hits, losses + loss

        # Written out rather than left to AutoGraph, whose rewriting of Python depends on Python's version.
        begin = (tf.constant(0), tf.constant(0.0), tf.constant(0.0))
        _, right, losses = tf.while_loop(lambda number, *_: number * self._batch < rows, step, begin)
        return right, losses

    def _step(self, raw: Any, labels: Any, whole: Any) -> Any:
        """Train on a replica's rows of a batch, which has ``whole`` rows; return right answers and part of the loss.

        The gradients of all replicas are added up as they are applied.
        """
        images = tf.cast(raw, tf.float32) / SCALE
        with tf.GradientTape() as tape:
            scores = self.model(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, scores)
            loss = tf.reduce_sum(losses) / tf.cast(whole, tf.float32)
        variables = self.model.trainable_variables
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        return self._hits(scores, labels), loss

    @tf.function(autograph=False, reduce_retracing=True)
    def _test_batch(self, images: Any, labels: Any, rows: Any) -> Any:
        """Return right answers and the sum of the rows' losses."""
        del rows  # all of them at once

        def one(images: Any, labels: Any) -> Any:
            scores = self.model(tf.cast(images, tf.float32) / SCALE, training=False)
            losses = keras.losses.sparse_categorical_crossentropy(labels, scores)
            return self._hits(scores, labels), tf.reduce_sum(losses)

        return self._added(self._workers.strategy.run(one, args=(images, labels)))

    def _added(self, results: Any) -> list[Any]:
        return [self._workers.strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None) for each in results]

    @staticmethod
    def _hits(scores: Any, labels: Any) -> Any:
        """Count right answers, in float32: exact for the rows of a span, and added up on any device."""
        return tf.reduce_sum(
            tf.cast(tf.equal(tf.argmax(scores, axis=-1, output_type=labels.dtype), labels), tf.float32)
        )

    def _tested(self) -> tuple[float, float]:
        total = len(self._test[0])
        parts = np.array_split(np.arange(total), range(self._test_rows, total, self._test_rows))
        hits, losses = zip(*self._computed(self._test_batch, self._test, parts, self._test_rows), strict=True)
        return sum(hits) / total, sum(losses) / total


def share_of(replica: int, rows: int, batch: int, replicas: int) -> npt.NDArray[np.int64]:
    """Return which of some rows a replica computes: of each batch every ``replicas``th, beginning with its own number.

    Args:
        replica: from 0.
        rows: how many there are, whole batches and a last one that may be smaller.
        batch: rows in one.
        replicas: how many share each.
    """
    return np.flatnonzero(np.arange(rows) % batch % replicas == replica)
