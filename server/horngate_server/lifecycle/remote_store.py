"""What is asked of an object store: one listing, and objects piece by piece. The only module that knows obstore.

Endpoint and credentials are read from AWS_* and GOOGLE_* by obstore itself, not by `settings`: where there are none it
asks the machine (instance metadata, a pod's web identity), and renews what expires. That chain is the library's.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from horngate_protos import stores
from horngate_protos.stores import StoreUrl
from horngate_server.core.errors import StoreError

PIECE_BYTES = 8 << 20
"""What one request fetches: each has the whole of `TIMEOUT_S`, however large its object is."""
TIMEOUT_S = 30.0
RETRIES = 2


class RemoteFile(NamedTuple):
    """An object.

    Attributes:
        path: below the root.
        size: in bytes.
        tag: its ETag, which changes with its content; without quotes, which not every answer has.
    """

    path: str
    size: int
    tag: str


class RemoteStore:
    """A folder in an object store.

    Args:
        url: its address.
        timeout_s: of one request.

    Raises:
        StoreError: obstore cannot be set up for it.
    """

    def __init__(self, url: StoreUrl, timeout_s: float = TIMEOUT_S) -> None:
        import obstore  # noqa: PLC0415 - an extra
        from obstore.store import GCSStore, S3Store  # noqa: PLC0415

        self.url = url
        self._obstore = obstore
        self._errors = (obstore.exceptions.BaseError, OSError, ValueError)
        options: Any = {"timeout": f"{timeout_s * 1000:.0f}ms"}  # as `client_options` it would undo AWS_ALLOW_HTTP
        try:
            self._store = (S3Store if url.scheme == "s3" else GCSStore)(
                url.bucket,
                prefix=url.prefix or None,
                config=options,
                retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=timeout_s)},
            )
        except self._errors as error:
            raise self._failed(error) from None

    def listing(self) -> list[RemoteFile]:
        """Return everything below the root.

        Raises:
            StoreError: it cannot be listed.
        """
        try:
            found = self._obstore.list(self._store).collect()
        except self._errors as error:
            raise self._failed(error) from None  # its text may hold what was signed
        return [RemoteFile(each["path"], each["size"], _tag(each["e_tag"])) for each in found]

    def read(self, file: RemoteFile) -> Iterator[memoryview]:
        """Yield an object's bytes in pieces, as it was when it was listed.

        Raises:
            StoreError: it cannot be read, has changed, or is cut short.
        """
        for begin in range(0, file.size, PIECE_BYTES):
            end = min(begin + PIECE_BYTES, file.size)
            try:
                answer = self._obstore.get(
                    self._store, file.path, options={"range": (begin, end), "if_match": f'"{file.tag}"'}
                )
                piece = memoryview(answer.bytes())
            except self._errors as error:
                raise self._failed(error, file) from None
            if _tag(answer.meta["e_tag"]) != file.tag:  # not every store looks at if_match
                raise StoreError(f"{self._shown(file)} changed while it was read")
            if len(piece) != end - begin:
                raise StoreError(f"{self._shown(file)} is cut short: {begin + len(piece)} of {file.size} bytes came")
            yield piece

    # --- private --------------------------------------------------------------------------------------

    def _failed(self, error: Exception, file: RemoteFile | None = None) -> StoreError:
        return StoreError(f"{self._shown(file)}: {stores.why(error)}")

    def _shown(self, file: RemoteFile | None) -> str:
        return f"{self.url}{f'/{file.path}' if file else ''}"


def _tag(text: str | None) -> str:
    return (text or "").strip('"')
