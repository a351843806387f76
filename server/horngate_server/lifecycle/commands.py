"""What administrators wish of the models that are served, carried out on the lifecycle's thread."""

import logging
from collections.abc import Callable, Mapping

from horngate_server.core.errors import ModelNotFound, Refused
from horngate_server.lifecycle.model_config import ModelConfig
from horngate_server.lifecycle.model_state import ModelState

log = logging.getLogger(__name__)


class ModelCommands:
    """Changes what is wanted, and makes it so.

    Args:
        models: by name.
        reconcile: loads what is wanted, and lets go what is not.
        note_departures: takes in which versions have left.
        write_label: writes a model's label into the configuration, and takes that; None where it is not to be written.
    """

    def __init__(
        self,
        models: Mapping[str, ModelState],
        reconcile: Callable[[], None],
        note_departures: Callable[[], None],
        write_label: Callable[[str, str, int], None] | None = None,
    ) -> None:
        self._models = models
        self._reconcile = reconcile
        self._note_departures = note_departures
        self._write_label = write_label

    def load(self, name: str) -> None:
        """Serve a model as its configuration says.

        Raises:
            ModelNotFound: there is none on disk.
            Refused: no version can be served, with the reason.
        """
        model = self._model(name)
        self._try_again(model)
        self._reconcile()
        self._must_serve(model)

    def unload(self, name: str) -> None:
        """Stop serving a model.

        Raises:
            ModelNotFound: there is none.
        """
        model = self._model(name)
        model.unloaded = True
        log.info("model %s is unloaded, as an administrator wishes", name)
        self._reconcile()

    def promote(self, name: str, number: int, label: str) -> None:
        """Give a version a label; in the configuration, too, where that may be written.

        Raises:
            ModelNotFound: there is no such version.
            Refused: it cannot be served, with the reason; or the label is the configuration's, which is not to be
                written.
            SettingsError: the configuration cannot be written.
        """
        model = self._model(name)
        if label in model.config.labels and self._write_label is None:
            raise Refused(
                f"label {label} of model {name} is set in --config: change it there, or start the server with "
                "--write-config, which lets promotions change it"
            )
        version = model.versions.get(number)
        if version is None or not (version.on_disk or version.loaded):
            raise ModelNotFound(f"model {name!r} has no version {number} on disk; it has {sorted(model.versions)}")
        version.refused = None
        model.unloaded = False
        model.promoting = {number}  # loaded first, before any label moves
        self._reconcile()
        model.promoting = set()
        if version.loaded is None:
            self._reconcile()
            raise Refused(f"model {name} version {number} cannot be served: {version.reason}")
        if self._write_label is not None:
            self._write_label(name, label, number)
            model.promoted.pop(label, None)
        else:
            model.promoted[label] = number
        self._reconcile()
        log.info("model %s: version %d is %s, as an administrator wishes", name, number, label)

    def reload(self, configs: Mapping[str, ModelConfig]) -> None:
        """Serve these models and no others.

        Raises:
            Refused: one of them cannot be served, or one of its labels is a version that cannot.
        """
        for name, model in self._models.items():
            if name not in configs:
                model.unloaded = True
                continue
            model.configure(configs[name])
            model.promoted.clear()
            self._try_again(model)
        log.info("served from now on, as an administrator wishes: %s", ", ".join(sorted(configs)) or "nothing")
        self._reconcile()
        for name, config in configs.items():
            model = self._models[name]
            self._must_serve(model)
            for label, number in config.labels.items():
                if label not in model.route.labels:
                    raise Refused(f"model {name}: label {label} is version {number}, which is not served")

    # --- private --------------------------------------------------------------------------------------

    def _model(self, name: str) -> ModelState:
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(f"no model {name!r}; expected one of {sorted(self._models)}")
        return model

    def _try_again(self, model: ModelState) -> None:
        """Let versions be loaded that were refused, or are leaving."""
        for departure in model.departures:
            departure.wait()  # who is leaving can only be loaded again once it has left
        self._note_departures()
        model.unloaded = False
        for version in model.versions.values():
            version.refused = None
            version.unproved = version.unproved and version.loaded is not None

    def _must_serve(self, model: ModelState) -> None:
        if model.route.default is None:
            raise Refused(f"model {model.name}: no version can be served: {model.why_not() or 'there is none'}")
