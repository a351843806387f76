"""The fit: whole spans of steps run inside TensorFlow, so that Python costs nothing per batch.

Images and labels stay in memory once, as they are on disk (uint8); what a span of steps needs is gathered for it. Each
epoch's order comes from the seed and the epoch's number alone, so that a resumed training sees what an uninterrupted
one would have seen.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from horngate_trainer import memory
from horngate_trainer.checkpoint import Checkpoint
from horngate_trainer.data import Dataset
from horngate_trainer.errors import CheckpointError
from horngate_trainer.recipes import Recipe

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


class Training:
    """A model on its way through its epochs. It is built under the seed, so that equal seeds give equal weights.

    Args:
        build: makes the model; called once, after the seed is set.
        dataset: checked data.
        recipe: batch size and learning rate.
        epochs: how many there are in all.
        seed: of weights, order and dropout.
    """

    def __init__(self, build: Callable[[], Any], dataset: Dataset, recipe: Recipe, *, epochs: int, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()  # costs nothing measurable on a CPU, and runs repeat bit by bit
        self.model = build()
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
        decay = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, self._steps * epochs)
        self._optimizer = keras.optimizers.Adam(decay)
        self._optimizer.build(self.model.trainable_variables)
        images = tf.TensorSpec([None, *dataset.image_shape], tf.uint8)
        labels = tf.TensorSpec([None], tf.int32)
        self._fit = tf.function(self._span, input_signature=[images, labels], autograph=False)

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

    def run(self, on_progress: Callable[[Progress], None]) -> Iterator[Epoch]:
        """Go through the epochs that are left; yields after each one, when the state is whole."""
        for number in range(len(self.history), self._epochs):
            began = time.monotonic()
            order = self._order(tf.constant(number)).numpy()
            right, loss, done = 0, 0.0, 0
            for span in np.array_split(np.arange(self._steps), self._spans):
                start, stop = int(span[0]) * self._batch, min(int(span[-1] + 1) * self._batch, self._rows)
                rows = order[start:stop]
                hits, losses = self._fit(*(tf.constant(array[rows]) for array in self._train))
                right, loss, done = right + int(hits), loss + float(losses), done + len(span)
                on_progress(Progress(number + 1, stop / self._rows, right / stop, loss / done))
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

    def _span(self, images: Any, labels: Any) -> Any:
        """Train on these, batch by batch; returns right answers and the sum of the batches' losses."""

        def step(first: Any, right: Any, losses: Any) -> Any:
            stop = first + self._batch
            hits, loss = self._step(images[first:stop], labels[first:stop])
            return stop, right + hits, losses + loss

        # Written out rather than left to AutoGraph, whose rewriting of Python depends on Python's version.
        begin = (tf.constant(0), tf.constant(0), tf.constant(0.0))
        _, right, losses = tf.while_loop(lambda first, *_: first < tf.shape(labels)[0], step, begin)
        return right, losses

    def _step(self, raw: Any, labels: Any) -> Any:
        images = tf.cast(raw, tf.float32) / SCALE
        with tf.GradientTape() as tape:
            scores = self.model(images, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, scores))
        variables = self.model.trainable_variables
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        hits = tf.equal(tf.argmax(scores, axis=-1, output_type=labels.dtype), labels)
        return tf.reduce_sum(tf.cast(hits, tf.int32)), loss

    @tf.function(autograph=False, reduce_retracing=True)
    def _test_batch(self, images: Any, labels: Any) -> Any:
        """Return right answers and the sum of the rows' losses."""
        scores = self.model(tf.cast(images, tf.float32) / SCALE, training=False)
        hits = tf.equal(tf.argmax(scores, axis=-1, output_type=labels.dtype), labels)
        losses = keras.losses.sparse_categorical_crossentropy(labels, scores)
        return tf.reduce_sum(tf.cast(hits, tf.int32)), tf.reduce_sum(losses)

    def _tested(self) -> tuple[float, float]:
        images, labels = self._test
        right, loss = 0, 0.0
        for at in range(0, len(images), self._test_rows):
            stop = at + self._test_rows
            hits, losses = self._test_batch(tf.constant(images[at:stop]), tf.constant(labels[at:stop], tf.int32))
            right, loss = right + int(hits), loss + float(losses)
        return right / len(images), loss / len(images)
