"""What administrators ask: Triton's model repository extension, and the same picture as JSON."""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from horngate_protos import open_inference_pb2 as oip
from horngate_server.config import STABLE
from horngate_server.errors import InvalidRequest, RequestError
from horngate_server.executor import Clock
from horngate_server.names import OPEN_INFERENCE

if TYPE_CHECKING:  # for the types alone
    from horngate_server.lifecycle import Lifecycle
    from horngate_server.metrics import Metrics

Answered = Callable[[bytes | RequestError], None]
"""Called once, from any thread, with the answer."""


class Admin:
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
            f"/{OPEN_INFERENCE}/RepositoryModelLoad": self.load,
            f"/{OPEN_INFERENCE}/RepositoryModelUnload": self.unload,
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

    def json(self) -> bytes:
        """Return every version with its load report."""
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
        return json.dumps(found, indent=2).encode() + b"\n"
