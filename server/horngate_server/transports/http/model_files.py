"""``/models/NAME/versions/V/tfjs/FILE`` on the HTTP port: a version's TF.js model, for web pages.

Only what a loaded version's manifest lists below ``assets.extra/tfjs``, and only with the SHA-256 that it says: what
was verified is what is served, whatever a name, a link or a change on disk would lead to.
"""

import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from horngate_server.core.errors import ModelNotFound, NotReady
from horngate_server.lifecycle.repository import Version
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.http.unix_client import Fetched

PATH = "/models/{name}/versions/{version}/tfjs/{file:path}"
FOLDER = "assets.extra/tfjs/"
CHUNK_BYTES = 1 << 18
"""What is in memory of a file that is being sent."""
ASKED = ("if-none-match",)
"""Headers of a request that a supervisor hands on beside those of others."""
ANSWERED = ("cache-control", "content-length", "content-type", "etag", "x-content-type-options")
"""Headers of an answer that it hands back."""


async def serve(request: Request, versions: Iterable[Version], memory: ByteBudget) -> Response:
    """Answer with a file, or with 304 where the caller has it already.

    Args:
        request: let in.
        versions: those that are loaded.
        memory: where the answer's bytes are counted.

    Raises:
        ModelNotFound: no such version is loaded, or it has no such file.
        NotReady: the file is not on disk as it was when it was loaded.
    """
    found = _find(versions, **request.path_params)
    headers = {
        "etag": f'"{found.sha256}"',
        "cache-control": "no-cache",  # kept, and asked for again: a version's number may be used anew
        "content-type": "application/json" if found.path.suffix == ".json" else "application/octet-stream",
        "x-content-type-options": "nosniff",
    }
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if known & {headers["etag"], "*"}:
        return Response(status_code=304, headers=headers)
    stream = await run_in_threadpool(_open, found)
    headers["content-length"] = str(os.fstat(stream.fileno()).st_size)
    return _Streamed(200, headers, stream, memory)


async def forward(request: Request, fetch: Callable[[Mapping[str, str]], Fetched], memory: ByteBudget) -> Response:
    """Answer with what another process of ours does.

    Args:
        request: let in.
        fetch: asks it, with these further headers; blocks.
        memory: where the answer's bytes are counted.

    Raises:
        NotReady: it does not answer.
    """
    asked = {name: request.headers[name] for name in ASKED if name in request.headers}
    try:
        answer = await run_in_threadpool(fetch, asked)
    except OSError as error:
        raise NotReady("no worker answers") from error
    kept = {name: answer.headers[name] for name in ANSWERED if name in answer.headers}
    return _Streamed(answer.status, kept, answer.body, memory)


# --- private ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _File:
    """What a manifest lists."""

    folder: Path
    path: Path
    sha256: str


def _find(versions: Iterable[Version], name: str, version: str, file: str) -> _File:
    loaded = [each for each in versions if each.name == name]
    for each in loaded:
        if str(each.number) == version:
            files = (each.manifest or {}).get("files", {})
            if FOLDER + file in files:
                return _File(each.path, each.path / FOLDER / file, files[FOLDER + file])
            listed = [key.removeprefix(FOLDER) for key in files if key.startswith(FOLDER)]
            raise ModelNotFound(
                f"version {version} of model {name!r} has no TF.js file {file!r}; "
                f"its manifest lists {', '.join(listed) or 'none'}"
            )
    numbers = ", ".join(str(each.number) for each in loaded)
    raise ModelNotFound(f"model {name!r} has no loaded version {version!r}; expected one of {numbers or 'none'}")


def _open(found: _File) -> BinaryIO:
    """Open a file that is what the manifest says.

    Raises:
        NotReady: it is not, or not any more.
    """
    try:
        whole = found.folder.resolve() / found.path.relative_to(found.folder)
        if whole.resolve() == whole:
            stream = os.fdopen(os.open(whole, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
            is_file = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
            if is_file and hashlib.file_digest(stream, "sha256").hexdigest() == found.sha256:
                stream.seek(0)
                return stream
            stream.close()
    except OSError as error:
        raise NotReady(f"{found.path.name} cannot be read: {error.strerror}") from error
    raise NotReady(f"{found.path.name} is not the file that was loaded")


class _Streamed(StreamingResponse):
    """A file on its way; a piece of it is in memory."""

    def __init__(self, status: int, headers: Mapping[str, str], stream: Any, memory: ByteBudget) -> None:
        super().__init__(self._pieces(), status, headers)
        self._stream = stream
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI)."""
        with self._stream:
            self._memory.take(CHUNK_BYTES)
            try:
                await super().__call__(scope, receive, send)
            finally:
                self._memory.give(CHUNK_BYTES)

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await run_in_threadpool(self._stream.read, CHUNK_BYTES):
            yield piece
