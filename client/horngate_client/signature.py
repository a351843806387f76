"""What a server says about itself and about a model: names, datatypes and shapes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from horngate_client.errors import ConfigurationError, ProtocolError
from horngate_protos import open_inference_pb2 as oip
from horngate_protos.datatypes import BY_NAME


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: the key for ``infer``.
        datatype: the protocol's name of the element type, such as ``"UINT8"``.
        shape: -1 is an axis of any length; where the first is -1, it counts rows.
        batched: requests to the model may be sent in parts, along the first axis. Where they may not, a shape of only
            [-1] is one of any number of axes too: the protocol has no other word for it.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    batched: bool = True

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy type of an element; ``object`` (of bytes) for BYTES.

        Raises:
            ProtocolError: the server's word for the datatype is none that this client knows.
        """
        if self.datatype == "BYTES":
            return np.dtype(object)
        if self.datatype not in BY_NAME:
            raise ProtocolError(f"{self.name} has the datatype {self.datatype!r}, which this client does not know")
        return BY_NAME[self.datatype].numpy

    @property
    def in_rows(self) -> bool:
        """The first axis counts rows, so that an array may be split along it."""
        return self.batched and self.shape[:1] == (-1,)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of a shape is one of these tensors.

        Args:
            shape: the length of each axis.
        """
        if self.shape == (-1,) and not self.batched:
            return True
        return len(shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """One of a model's signatures.

    Attributes:
        name: what a request asks for it by.
        inputs: what it takes.
        outputs: what it returns.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model's signature.

    Attributes:
        name: the model's name on the server.
        versions: the versions that are served.
        platform: what runs it, in the server's words.
        inputs: what it takes.
        outputs: what it returns.
        batching: ``"rows"`` where a large request may be sent in parts, by rows, ``"whole"`` where it goes as it is;
            empty where the server does not say, and then it is taken for the first where every shape begins with -1.
        signatures: all of them, the default one first; none where the server does not say.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batching: str = ""
    signatures: tuple[Signature, ...] = ()

    def asked(self, signature: str) -> "ModelMetadata":
        """Return the same with the inputs and outputs of one of its signatures.

        Args:
            signature: its name; empty for the default one.

        Raises:
            ConfigurationError: there is none of this name, or the server names none.
        """
        if not signature:
            return self
        for each in self.signatures:
            if each.name == signature:
                return replace(self, inputs=each.inputs, outputs=each.outputs)
        named = ", ".join(each.name for each in self.signatures)
        raise ConfigurationError(
            f"{self.name} has no signature {signature!r}; {f'it has {named}' if named else 'the server names none'}"
        )

    @classmethod
    def parse(cls, message: oip.ModelMetadataResponse) -> "ModelMetadata":
        """Read the protocol's message.

        Args:
            message: as a server sent it.
        """
        batching = message.horngate_batching
        signatures = tuple(
            Signature(each.name, _specs(each.inputs, each.batching), _specs(each.outputs, each.batching))
            for each in message.horngate_signatures
        )
        return cls(
            message.name,
            tuple(message.versions),
            message.platform,
            _specs(message.inputs, batching),
            _specs(message.outputs, batching),
            batching,
            signatures,
        )


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server, as it describes itself.

    Attributes:
        name: what it is.
        version: its version.
        extensions: the extensions of the protocol that it speaks.
        ready: every model is warm and it takes traffic.
    """

    name: str
    version: str
    extensions: tuple[str, ...]
    ready: bool


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version that a server knows.

    Attributes:
        name: the model's.
        version: its number.
        state: "ready", "loading", "draining", "failed", "ended" or "found"; of other servers, Triton's word for it.
        reason: why it is in that state, where that is not plain.
        age_seconds: since when; 0 where the server does not say.
        rows: computed for callers so far.
        device: where it computes.
        labels: what it answers to; "" for callers that name no version.
        verification: whether it has proved itself.
        shadow_rows: rows that it computed along with the version that answers.
        shadow_agreed: of these, how many got the same answer.
        engine: what computes it, "tensorflow" or "litert"; empty where the server does not say.
    """

    name: str
    version: str
    state: str
    reason: str
    age_seconds: float
    rows: int
    device: str
    labels: tuple[str, ...]
    verification: str
    shadow_rows: int
    shadow_agreed: int
    engine: str

    @classmethod
    def parse(cls, entry: oip.RepositoryIndexResponse.ModelIndex) -> "ModelVersion":
        """Read an entry of a RepositoryIndexResponse.

        Args:
            entry: as a server sent it.
        """
        return cls(
            entry.name, entry.version, entry.horngate_state or entry.state.lower(), entry.reason, entry.age_seconds,
            entry.rows, entry.device, tuple(entry.labels), entry.verification, entry.shadow_rows, entry.shadow_agreed,
            entry.engine,
        )  # fmt: skip


# --- private ------------------------------------------------------------------------------------------------


def _specs(tensors: Iterable[oip.ModelMetadataResponse.TensorMetadata], batching: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(each.name, each.datatype, tuple(each.shape), batching != "whole") for each in tensors)
