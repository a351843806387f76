"""Which engine computes a version: what was asked for, what is there, what is installed, and what has proved itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from horngate_server.core.errors import DeviceUnavailable, ModelError
from horngate_server.core.settings import LITERT, TENSORFLOW, Settings
from horngate_server.core.signature import WHOLE, Batching, Signature
from horngate_server.lifecycle import engines
from horngate_server.lifecycle.batching_proof import Proof
from horngate_server.lifecycle.engines import Tried
from horngate_server.runtimes import litert, tensorflow
from support.in_process import SIGNATURE
from support.lifecycle_harness import FakeLoadedModel

EXPLAIN = replace(SIGNATURE, name="explain")


def version(folder: Path, *files: str) -> Path:
    """Write a version that has these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).write_bytes(b"x")
    return folder


def tried(
    engine: str, ms: Mapping[int, float], *signatures: Signature, verification: str = "verified (9 rows)"
) -> Tried:
    """Make what an engine has shown: milliseconds by rows, the same for every signature."""
    model = FakeLoadedModel(1, *(signatures or (SIGNATURE,)))
    proof = Proof(Batching(), seconds={rows: each / 1e3 for rows, each in ms.items()})
    return Tried(engine, model, dict.fromkeys(model.signatures, proof), verification)


def full(ms: Mapping[int, float] | None = None, *signatures: Signature) -> Tried:
    """Make what TensorFlow has shown."""
    return tried(TENSORFLOW, ms or {1: 1.0, 8: 2.0}, *signatures)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say which engines are installed."""

    def are(*names: str) -> None:
        monkeypatch.setattr(litert, "available", lambda: "2.3" if LITERT in names else "")
        monkeypatch.setattr(tensorflow, "available", lambda: TENSORFLOW in names)

    are(TENSORFLOW, LITERT)
    return are


BOTH = ("saved_model.pb", "model.tflite")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("files", "settings", "expected"),
    [
        pytest.param(BOTH, {}, [TENSORFLOW, LITERT], id="both-are-tried"),
        pytest.param(BOTH[:1], {}, [TENSORFLOW], id="only-a-saved-model"),
        pytest.param(BOTH[1:], {}, [LITERT], id="only-a-tflite"),
        pytest.param(BOTH, {"engine": "litert"}, [LITERT], id="asked-for"),
        pytest.param(BOTH, {"device": "gpu"}, [TENSORFLOW], id="a-gpu"),
    ],
)
def test_the_engines_that_have_a_file_are_tried(
    tmp_path: Path, files: Sequence[str], settings: dict[str, str], expected: list[str]
) -> None:
    """TensorFlow first, since it says whether there is a GPU; only one where that was asked for."""
    given = Settings(**settings)  # type: ignore[arg-type]
    assert engines.candidates(version(tmp_path, *files), given, given.limits) == expected


@pytest.mark.usefixtures("installed")
def test_tags_and_a_shadow_leave_one_engine(tmp_path: Path) -> None:
    """Tags are a SavedModel's; and what computes along does not serve."""
    folder, limits = version(tmp_path, *BOTH), Settings().limits
    assert engines.candidates(folder, Settings(), replace(limits, tags=("serve", "gpu"))) == [TENSORFLOW]
    assert engines.candidates(folder, Settings(), replace(limits, shadow_engine=LITERT)) == [TENSORFLOW]
    assert engines.candidates(folder, Settings(), replace(limits, shadow_engine=TENSORFLOW)) == [LITERT]


def test_what_is_missing_is_named_with_what_to_install(tmp_path: Path, installed: Callable[..., None]) -> None:
    """A file without its engine, an engine without its file, and a GPU without TensorFlow."""
    limits = Settings().limits
    installed(TENSORFLOW)
    assert engines.candidates(version(tmp_path / "both", *BOTH), Settings(), limits) == [TENSORFLOW]
    with pytest.raises(ModelError, match=r"model.tflite needs LiteRT, .* pip install 'horngate\[lite\]'"):
        engines.candidates(version(tmp_path / "lite", "model.tflite"), Settings(), limits)
    installed(LITERT)
    with pytest.raises(ModelError, match=r"saved_model.pb needs TensorFlow, .* pip install 'horngate\[server\]'"):
        engines.candidates(version(tmp_path / "full", "saved_model.pb"), Settings(), limits)
    with pytest.raises(ModelError, match=r"engine tensorflow: it has no saved_model.pb"):
        engines.candidates(tmp_path / "lite", Settings(), replace(limits, engine=TENSORFLOW))
    with pytest.raises(DeviceUnavailable, match="LiteRT computes on the CPU"):
        engines.candidates(tmp_path / "lite", Settings(device="gpu"), limits)


def test_the_faster_engine_serves_and_the_other_is_closed() -> None:
    """LiteRT, where it is no slower on average and nowhere by much; the reason has the figures."""
    before, after = full(), tried(LITERT, {1: 0.5, 8: 2.1})
    choice = engines.choose(before, after)
    assert choice.model is after.model
    assert choice.engines == {"serving_default": LITERT}
    assert choice.why.startswith("0.72 of TensorFlow's time")
    assert before.model.closed  # type: ignore[attr-defined]
    assert not after.model.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("lite", "why"),
    [
        (tried(LITERT, {1: 0.9, 8: 3.0}), "1.16 of TensorFlow's time, 1.50 at worst"),
        (tried(LITERT, {1: 0.5, 8: 2.5}), "0.79 of TensorFlow's time, 1.25 at worst"),
        (tried(LITERT, {1: 0.5}, verification="unverified: it has no recorded answers"), "unverified: it has no"),
        (replace(tried(LITERT, {1: 0.5}), float32=False), "quantized, which has to be asked for"),
        (tried(LITERT, {1: 0.5}, EXPLAIN), "has no signature serving_default"),
        (tried(LITERT, {1: 0.5}, replace(SIGNATURE, outputs=SIGNATURE.outputs[:1])), "LiteRT's signature"),
        (replace(tried(LITERT, {1: 0.5}), proofs={"serving_default": Proof(Batching(WHOLE, "why"))}), "batching by"),
        (replace(tried(LITERT, {1: 0.5}), proofs={"serving_default": Proof(Batching(), proved=False)}), "batching by"),
    ],
    ids=["slower", "slow-at-one-size", "unverified", "quantized", "no-signature", "other-outputs", "whole", "unproved"],
)
def test_tensorflow_serves_where_litert_is_not_as_good(lite: Tried, why: str) -> None:
    """The banner and /models say in what."""
    before = full()
    choice = engines.choose(before, lite)
    assert choice.model is before.model
    assert why in choice.why
    assert lite.model.closed  # type: ignore[attr-defined]


def test_each_signature_has_its_own_engine() -> None:
    """What LiteRT cannot hold, such as gradients, is computed by TensorFlow beside it."""
    before, after = full({1: 1.0}, SIGNATURE, EXPLAIN), tried(LITERT, {1: 0.5})
    choice = engines.choose(before, after)
    assert choice.engines == {"serving_default": LITERT, "explain": TENSORFLOW}
    for name, each in (("serving_default", after), ("explain", before)):
        feed = choice.model.feed(choice.model.signatures[name], [(1, 2)])
        feed.arrays[0][...] = 7
        choice.model.run(feed)
        assert isinstance(each.model, FakeLoadedModel)
        assert [array.tolist() for array in each.model.ran] == [[[7, 7]]]
    choice.model.close()
    assert before.model.closed  # type: ignore[attr-defined]
    assert after.model.closed  # type: ignore[attr-defined]
