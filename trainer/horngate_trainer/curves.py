"""A training's curves for TensorBoard, epoch by epoch; one that is resumed goes on with its own."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tensorflow as tf

from horngate_trainer.training import Epoch


class Curves:
    """Writes them.

    Args:
        folder: of this training alone.
        model: whose graph is shown, [N, ...] -> [N, classes].
        settings: its hyperparameters, as the summary's table has them.
        done: epochs that are there already.
    """

    def __init__(self, folder: Path, model: Any, settings: dict[str, Any], *, done: int) -> None:
        self._writer = tf.summary.create_file_writer(str(folder))
        if done:
            return
        function = tf.function(lambda images: model(images, training=False), autograph=False)
        concrete = function.get_concrete_function(tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype))
        with self._writer.as_default(step=0):
            tf.summary.graph(concrete.graph)
            self._hyperparameters(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()

    def epoch(self, number: int, epoch: Epoch) -> None:
        """Write what an epoch achieved."""
        with self._writer.as_default(step=number):
            tf.summary.scalar("accuracy/training", epoch.accuracy)
            tf.summary.scalar("accuracy/test", epoch.test_accuracy)
            tf.summary.scalar("loss/training", epoch.loss)
            tf.summary.scalar("loss/test", epoch.test_loss)
        self._writer.flush()

    def pictures(self, number: int, folder: Path) -> None:
        """Write the report's pictures."""
        with self._writer.as_default(step=number):
            for path in sorted(folder.glob("*.png")):
                picture = tf.io.decode_png(path.read_bytes(), channels=3)
                tf.summary.image(path.stem, picture[tf.newaxis])

    @staticmethod
    def _hyperparameters(settings: dict[str, Any]) -> None:
        from tensorboard.plugins.hparams import api  # noqa: PLC0415 - half a second, and only reports need it

        api.hparams({key: value for key, value in settings.items() if isinstance(value, str | int | float)})
