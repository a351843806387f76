"""Recorded requests become a version's recorded answers: it has to answer so first, then its manifest is sealed."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from horngate_trainer import golden, publish, recorded, tflite_file
from horngate_trainer.errors import ExportError, SourceError, VerificationError, first_line
from horngate_trainer.golden import Tolerance
from horngate_trainer.golden_settings import MOST_ROWS
from horngate_trainer.litert import FILE as LITE
from horngate_trainer.model_files import GRAPH
from horngate_trainer.recorded import Recorded
from horngate_trainer.written import Answers, Tensors, reload


def run(chosen: Sequence[Recorded], version: Path, progress: Callable[[str], None]) -> None:
    """Make requests the recorded answers of a version, in the place of those of the same signatures.

    Args:
        chosen: the requests.
        version: its folder.
        progress: told in a few words what is done.

    Raises:
        SourceError: it is no version with a manifest, or what it has recorded is damaged.
        VerificationError: it does not answer as was recorded. Nothing was changed.
        ExportError: it cannot answer them at all, or the folder cannot be written.
    """
    manifest = _manifest(version)
    if manifest.get("deterministic") is False:
        raise ExportError(f"{version} answers the same request differently each time: it can have no recorded answers")
    rows = sum(each.rows for each in chosen)
    progress(f"asking    {version} {len(chosen)} recorded requests, {rows} rows")
    _verify(chosen, version, _tolerance(manifest))
    signatures = {each.signature for each in chosen}
    file = version / golden.FILE
    try:
        kept = [each for each in recorded.read(file) if each.signature not in signatures] if file.is_file() else []
        if len(kept) + len(chosen) > MOST_ROWS:
            raise ExportError(
                f"servers read {MOST_ROWS} records of a version, and {len(kept)} are kept: choose fewer rows"
            )
        with publish.staging(version.parent) as staging:
            (staging.path / golden.FILE).parent.mkdir()
            golden.write(staging.path / golden.FILE, version.parent.name, _by_signature([*chosen, *kept]))
            staging.replace(version, golden.FILE, manifest)
    except OSError as exc:
        raise ExportError(f"cannot write to {version}: {exc.strerror or exc}") from exc
    progress(f"recorded  {rows} rows for {', '.join(sorted(signatures))}; the manifest is sealed anew")


# --- private ---------------------------------------------------------------------------------------------------------


def _manifest(version: Path) -> dict[str, Any]:
    try:
        manifest: Any = publish.manifest(version)
    except (OSError, ValueError) as exc:
        raise SourceError(
            f"{version} has no {publish.MANIFEST} that can be read: expected a version that horngate-trainer wrote"
        ) from exc
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise SourceError(f"{version / publish.MANIFEST} is no manifest of a version")
    return dict(manifest)


def _tolerance(manifest: Mapping[str, Any]) -> Tolerance:
    given = manifest.get("tolerance") or {}
    usual = Tolerance()
    return Tolerance(float(given.get("atol", usual.atol)), float(given.get("rtol", usual.rtol)))


def _verify(chosen: Sequence[Recorded], version: Path, tolerance: Tolerance) -> None:
    """Have the version answer.

    Raises:
        VerificationError: another answer than the recorded one came; the text names the record.
        ExportError: none came.
    """
    with _answers(version) as answer:
        for each in chosen:
            try:
                got = answer(each.request, each.signature)
            except Exception as exc:  # TensorFlow and LiteRT raise anything
                raise ExportError(f"{version} cannot answer {each.place}: {first_line(exc)}") from exc
            try:
                golden.compare(got, each.answer, tolerance)
            except VerificationError as exc:
                raise VerificationError(f"{version} does not answer as was recorded in {each.place}: {exc}") from exc


@contextmanager
def _answers(version: Path) -> Iterator[Answers]:
    """Yield what answers for a version as servers have it answer."""
    if (version / GRAPH).is_file():
        with reload(version) as answer:
            yield answer
    else:
        with tflite_file.load(version / LITE).reload(version) as answer:
            yield answer


def _by_signature(records: Sequence[Recorded]) -> Mapping[str, Sequence[tuple[Tensors, Tensors | None]]]:
    found: dict[str, list[tuple[Tensors, Tensors | None]]] = defaultdict(list)
    for each in records:
        found[each.signature].append((each.request, each.answer or None))
    return found
