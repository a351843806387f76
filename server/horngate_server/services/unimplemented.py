"""What other servers of these protocols have and Horngate does not: its callers are told so, in a sentence."""

from collections.abc import Callable, Mapping

from horngate_server.core.errors import NotImplementedHere
from horngate_server.core.methods import MODEL, OPEN_INFERENCE, PREDICTION

_ADMIN = "this server takes no administrator's calls; start it with --admin"
_MEMORY = "tensors come in the message: this server shares no memory with its callers"
_SENTENCES = {
    f"/{OPEN_INFERENCE}/RepositoryModelLoad": _ADMIN,
    f"/{OPEN_INFERENCE}/RepositoryModelUnload": _ADMIN,
    f"/{MODEL}/HandleReloadConfigRequest": _ADMIN,
    **{
        f"/{OPEN_INFERENCE}/{kind}SharedMemory{what}": _MEMORY
        for kind in ("System", "Cuda")
        for what in ("Status", "Register", "Unregister")
    },
    f"/{OPEN_INFERENCE}/TraceSetting": "tracing is set when the server starts, not by its callers",
    f"/{OPEN_INFERENCE}/LogSettings": "logging is set when the server starts: --log-format, --log-level",
    f"/{PREDICTION}/MultiInference": "one signature per call: use Classify, Regress or Predict",
    f"/{PREDICTION}/PredictStreamed": "answers come whole: use Predict",
    "/tensorflow.serving.SessionService/SessionRun": "signatures are served, not graphs: use Predict",
}


def handlers() -> Mapping[str, Callable[[bytes], bytes]]:
    """Return a refusal for each of those methods, by full name."""
    return {method: _refuse(sentence) for method, sentence in _SENTENCES.items()}


# --- private ------------------------------------------------------------------------------------------


def _refuse(sentence: str) -> Callable[[bytes], bytes]:
    def refuse(_message: bytes) -> bytes:
        raise NotImplementedHere(sentence)

    return refuse
