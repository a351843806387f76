"""Publication to an object store: what was published in a local folder is copied to the store, the manifest last.

A store has no rename: servers take a version once its manifest is there and every file that it lists. Before the
manifest comes the graph, without which a version is none that anybody would take. Its number is claimed by an object
that is written only where there is none, so that two trainers do not write into one version. The only module here that
knows obstore, which reads endpoint and credentials from the variables AWS_* and GOOGLE_* by itself.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from horngate_protos import stores
from horngate_protos.stores import StoreUrl
from horngate_trainer import publish
from horngate_trainer.errors import ExportError

FOLDER = Path("models")
"""Where a version is made that goes to a store; a copy stays there."""
CLAIMS = ".claims"
"""A folder beside a model's versions, with an empty object for each number that a trainer has taken."""
GRAPHS = ("model.tflite", "saved_model.pb")


def output(text: str) -> Path | StoreUrl:
    """Read a folder's path, or a store's address.

    Raises:
        ValueError: it is neither.
    """
    if not text or "\0" in text:
        raise ValueError(f"a folder is needed, not {text!r}")
    return stores.parse(text) or Path(text)


def made_in(place: Path | StoreUrl) -> Path:
    """Return the local folder of models: for a store, where a version is made before it is copied there."""
    return FOLDER if isinstance(place, StoreUrl) else place


def newest(url: StoreUrl, name: str) -> str | None:
    """Return the address of a model's newest version in a store; None where it has none.

    Raises:
        ExportError: obstore is not installed, or the store cannot be listed.
    """
    with _store(url) as (obstore, store):
        whole = [number for number, sealed in _versions(obstore, store, name).items() if sealed]
    return f"{url}/{name}/{max(whole)}" if whole else None


def upload(version: str | Path, url: str | StoreUrl) -> str:
    """Copy a published version to an object store, as the next version of its model there.

    A store whose newest version has the same files is left as it is.

    Args:
        version: the version's folder, as `horngate_trainer.export` returns it.
        url: the folder of models, ``s3://bucket/prefix`` or ``gs://bucket/prefix``.

    Returns:
        The version's address, for example ``s3://bucket/models/wine/3``.

    Raises:
        ExportError: the address is none, obstore is not installed, the version cannot be read, or the store fails;
            what was written then has no manifest, and is no version.
    """
    version = Path(version)
    try:
        address = stores.parse(str(url))
        manifest = publish.manifest(version)
    except (OSError, ValueError) as exc:
        raise ExportError(str(exc)) from None
    if address is None:
        raise ExportError(stores.EXPECTED)
    name, then = version.parent.name, f"; the version is in {version}, and horngate_trainer.upload can publish it"
    with _store(address, then) as (obstore, store):
        there = _versions(obstore, store, name)
        last = max(there, default=0)
        if there.get(last):
            known = obstore.get(store, f"{name}/{last}/{publish.MANIFEST}").bytes()
            if json.loads(bytes(known)).get("files") == manifest["files"]:
                return f"{address}/{name}/{last}"
        number = last + 1
        while not _claim(obstore, store, f"{name}/{CLAIMS}/{number}"):
            number += 1
        for file in sorted(manifest["files"], key=GRAPHS.__contains__):
            obstore.put(store, f"{name}/{number}/{file}", version / file)
        sealed = json.dumps({**manifest, "version": number}, indent=2, ensure_ascii=False) + "\n"
        obstore.put(store, f"{name}/{number}/{publish.MANIFEST}", sealed.encode())
    return f"{address}/{name}/{number}"


# --- private ---------------------------------------------------------------------------------------------------------


@contextmanager
def _store(url: StoreUrl, then: str = "") -> Iterator[tuple[Any, Any]]:
    """Open a store; its failures become one line without a secret."""
    try:
        import obstore  # noqa: PLC0415 - an extra
        from obstore.store import GCSStore, S3Store  # noqa: PLC0415
    except ImportError as exc:
        raise ExportError(f"{url}: {stores.EXTRA}") from exc
    try:
        yield obstore, (S3Store if url.scheme == "s3" else GCSStore)(url.bucket, prefix=url.prefix or None)
    except (obstore.exceptions.BaseError, OSError, ValueError) as exc:
        raise ExportError(f"{url}: {stores.why(exc)}{then}") from None  # its text may hold what was signed


def _versions(obstore: Any, store: Any, name: str) -> dict[int, bool]:
    """Return a model's versions, and which of them have a manifest: the others may be half written."""
    found: dict[int, bool] = {}
    for each in obstore.list(store, name).collect():
        number, _, path = each["path"].removeprefix(f"{name}/").partition("/")
        if number.isascii() and number.isdigit():
            found[int(number)] = found.get(int(number), False) or path == os.fspath(publish.MANIFEST)
    return found


def _claim(obstore: Any, store: Any, path: str) -> bool:
    """Write an object that nobody has written before; False where somebody has."""
    try:
        obstore.put(store, path, b"", mode="create")
    except obstore.exceptions.AlreadyExistsError:
        return False
    return True
