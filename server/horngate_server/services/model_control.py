"""What administrators ask: Triton's model repository extension, TensorFlow Serving's reload, the picture as JSON."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from horngate_protos import open_inference_pb2 as oip
from horngate_protos import tensorflow_serving_pb2 as tfs
from horngate_server.core.clock import Clock
from horngate_server.core.errors import InvalidRequest, RequestError
from horngate_server.core.methods import LOAD, RELOAD, UNLOAD
from horngate_server.lifecycle import repository
from horngate_server.lifecycle.model_config import STABLE, ModelConfig

if TYPE_CHECKING:  # for the types alone
    from horngate_server.lifecycle.manager import Lifecycle
    from horngate_server.telemetry.metrics import Metrics

Answered = Callable[[bytes | RequestError], None]
"""Called once, from any thread, with the answer."""


class ModelControl:
    """Answers an administrator's calls.

    Args:
        lifecycle: knows and does.
        metrics: counts rows.
        clock: the lifecycle's.
    """

    def __init__(self, lifecycle: "Lifecycle", metrics: "Metrics", clock: Clock) -> None:
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._clock = clock

    def deferred(self) -> Mapping[str, Callable[[bytes, Answered], None]]:
        """Return the methods, by full name."""
        return {
            LOAD: self.load,
            UNLOAD: self.unload,
            RELOAD: self.reload,
        }

    def load(self, message: bytes, answered: Answered) -> None:
        """Answer a RepositoryModelLoadRequest once the model serves, or cannot."""
        request = oip.RepositoryModelLoadRequest.FromString(message)
        parameters = request.parameters
        unknown = set(parameters) - {"version", "label"}
        if unknown:
            raise InvalidRequest(f"parameters {sorted(unknown)}; expected version and label")

        def done(error: RequestError | None) -> None:
            answered(error or oip.RepositoryModelLoadResponse().SerializeToString())

        if not parameters:
            self._lifecycle.load(request.model_name, done)
            return
        version, label = parameters["version"].int64_param, parameters["label"].string_param or STABLE
        if version < 1 or label.isdecimal():
            raise InvalidRequest("expected the parameter version as int64, and label as a name that is no number")
        self._lifecycle.promote(request.model_name, version, label, done)

    def unload(self, message: bytes, answered: Answered) -> None:
        """Answer a RepositoryModelUnloadRequest once nobody new gets to the model."""
        request = oip.RepositoryModelUnloadRequest.FromString(message)
        response = oip.RepositoryModelUnloadResponse().SerializeToString()
        self._lifecycle.unload(request.model_name, lambda error: answered(error or response))

    def reload(self, message: bytes, answered: Answered) -> None:
        """Answer TensorFlow Serving's ReloadConfigRequest once what it asks for serves."""
        config = tfs.ReloadConfigRequest.FromString(message).config
        if config.WhichOneof("config") != "model_config_list":
            raise InvalidRequest("expected a ModelConfigList: no other configuration is supported")
        configs = {each.name: self._config(each) for each in config.model_config_list.config}
        if len(configs) != len(config.model_config_list.config):
            raise InvalidRequest("expected every model once")
        response = tfs.ReloadConfigResponse(status=tfs.StatusProto()).SerializeToString()
        self._lifecycle.reload(configs, lambda error: answered(error or response))

    def json(self) -> bytes:
        """Return every version with its load report, and what lies beside them and is not served, with the reason."""
        now = self._clock()
        found = [
            {
                "name": each.name,
                "version": each.version,
                "state": each.state,
                "reason": each.reason,
                "age_seconds": round(now - each.since, 3),
                "labels": list(each.labels),
                "rows": self._metrics.rows(each.name, str(each.version)),
                "report": each.report.json() if each.report else None,
            }
            for each in self._lifecycle.states()
        ]
        found += [
            {
                "name": repository.shown(path),
                "version": None,
                "state": "ignored",
                "reason": reason,
                "age_seconds": None,
                "labels": [],
                "rows": None,
                "report": None,
            }
            for path, reason in self._lifecycle.ignored.items()
        ]
        return json.dumps(found, indent=2).encode() + b"\n"

    # --- private --------------------------------------------------------------------------------------

    def _config(self, given: tfs.ModelConfig) -> ModelConfig:
        """Read what TensorFlow Serving's ModelConfig says of one model."""
        expected = self._lifecycle.places.folder_of(given.name)
        if given.base_path and ("\0" in given.base_path or Path(given.base_path).resolve() != expected.resolve()):
            raise InvalidRequest(f"model {given.name!r}: base_path {given.base_path}; expected {expected}, or nothing")
        if given.model_platform not in {"", "tensorflow"}:
            raise InvalidRequest(f"model {given.name!r}: model_platform {given.model_platform}; expected tensorflow")
        for label in given.version_labels:
            if not label or label.isdecimal():
                raise InvalidRequest(f"model {given.name!r}: label {label!r}; expected a name that is no number")
        policy = given.model_version_policy
        versions: frozenset[int] | None = None
        match policy.WhichOneof("policy_choice"):
            case "all":
                versions = frozenset()
            case "specific":
                versions = frozenset(policy.specific.versions)
                if not versions:
                    raise InvalidRequest(f"model {given.name!r}: no specific versions; expected at least one")
        return replace(
            self._lifecycle.defaults,
            latest=policy.latest.num_versions or 1,
            versions=versions,
            labels=MappingProxyType(dict(given.version_labels)),
        )
