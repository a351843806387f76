"""Both clients against a real socket; the async one through asyncio.run."""

import asyncio
import inspect
import pickle
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.conftest import images
from client.fake_server import Failure, FakeServer, serve
from horngate_client import (
    AsyncClient,
    CallError,
    Client,
    ClientClosed,
    ConfigurationError,
    ConversionError,
    DeadlineExceeded,
    HorngateError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    ProtocolError,
    RetryPolicy,
    ServerFault,
    TlsConfig,
    Unauthenticated,
    Unavailable,
)

Code = grpc.StatusCode
FAST = RetryPolicy(attempts=5, initial_seconds=0.001)
Ask = Callable[..., Any]


def ask_sync(servers: Any, method: str, *args: Any, options: Any = None, **kwargs: Any) -> Any:
    """Call one method of a blocking client."""
    with Client(servers, **{"retry": FAST} | (options or {})) as client:
        return getattr(client, method)(*args, **kwargs)


def ask_async(servers: Any, method: str, *args: Any, options: Any = None, **kwargs: Any) -> Any:
    """Call one method of an async client, which is made before there is an event loop."""
    client = AsyncClient(servers, **{"retry": FAST} | (options or {}))

    async def run() -> Any:
        async with client:
            return await getattr(client, method)(*args, **kwargs)

    return asyncio.run(run())


@pytest.fixture(params=[ask_sync, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Either client, for one call."""
    return request.param  # type: ignore[no-any-return]


# --- answers ---


def test_predict_returns_classes_probabilities_timing_and_version(server: FakeServer, ask: Ask) -> None:
    """One image is a batch of one; the server's own timing comes along."""
    image = images(1)[0]
    prediction = ask(server.address, "predict", image)
    assert prediction.label == image[0, 0] % 10
    assert prediction.classes.dtype == np.int64
    assert prediction.probabilities.shape == (1, 10)
    assert prediction.version == "1"
    assert (prediction.timing.queue, prediction.timing.compute) == (0.0002, 0.003)
    assert 0 < prediction.timing.total < 10


def test_timing_is_none_where_the_server_does_not_tell(server: FakeServer, ask: Ask) -> None:
    """Other servers ignore the question."""
    server.timing = None
    timing = ask(server.address, "predict", images(1)).timing
    assert (timing.queue, timing.compute) == (None, None)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 200), limit=st.integers(1, 64), window=st.integers(1, 8))
def test_rows_come_back_in_request_order(server: FakeServer, rows: int, limit: int, window: int) -> None:
    """However an array is split, and however many requests are in flight."""
    batch = images(rows, seed=rows)
    options = {"rows_per_request": limit, "in_flight": window}
    for ask in (ask_sync, ask_async):
        server.seen.clear()
        prediction = ask(server.address, "predict", batch, options=options)
        np.testing.assert_array_equal(prediction.classes, batch[:, 0, 0] % 10)
        assert server.count() == -(-rows // limit)


def test_large_rows_are_split_by_bytes_and_several_requests_are_in_flight(ask: Ask) -> None:
    """No request passes gRPC's default limit of 4 MiB, and the window is used."""
    specs = (("x", "FP32", (-1, 65536)),)
    pair = threading.Barrier(2)

    def model(arrays: Any) -> Any:
        pair.wait(10)
        return {"y": arrays["x"] + 1}

    fake = FakeServer(specs, (("y", "FP32", (-1, 65536)),), model)
    with serve(fake) as server:
        x = np.random.default_rng(0).random((50, 65536), dtype=np.float32)
        y = ask(server.address, "infer", {"x": x}, options={"in_flight": 3})["y"]
        np.testing.assert_array_equal(y, x + 1)
        assert y.flags.writeable
        assert server.count() == 4
        assert all(request.ByteSize() < 4 * 1024 * 1024 for request in server.requests())


def test_no_more_requests_are_in_flight_than_allowed(server: FakeServer, ask: Ask) -> None:
    """The window bounds what a bulk call asks of a server at a time."""
    ask(server.address, "predict", images(40), options={"rows_per_request": 1, "in_flight": 3})
    assert server.most_at_once <= 3


def test_infer_speaks_every_datatype(ask: Ask) -> None:
    """Each NumPy type, strings too; raw and, from other servers, typed answers; a part of the outputs."""
    kinds = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64", "BYTES")
    specs = tuple((kind.lower(), kind, (-1, 2)) for kind in kinds)
    fake = FakeServer(specs, specs, lambda arrays: arrays)
    values: dict[str, Any] = {kind.lower(): [[0, 1], [1, 0], [1, 1]] for kind in kinds} | {"bool": [[True, False]] * 3}
    values["bytes"] = [["a", b"bc"], ["", "d"], ["e", "ö"]]
    with serve(fake) as server:
        answer = ask(server.address, "infer", values)
        assert answer["bytes"].tolist() == [[b"a", b"bc"], [b"", b"d"], [b"e", "ö".encode()]]
        for name in set(values) - {"bytes"}:
            assert answer[name].tolist() == values[name], name
        assert set(ask(server.address, "infer", values, outputs=["int8"])) == {"int8"}
        server.typed, server.outputs = True, specs[:-1]
        assert ask(server.address, "infer", values)["fp64"].tolist() == values["fp64"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        pytest.param({"imagez": np.zeros((1, 28, 28))}, "no input 'imagez'; it takes images", id="unknown"),
        pytest.param({}, "'images' is missing", id="missing"),
        pytest.param({"images": np.zeros((28, 28), np.uint8)}, r"array\[None\]", id="no-batch-axis"),
        pytest.param({"images": np.zeros((0, 28, 28), np.uint8)}, "no rows", id="empty"),
        pytest.param({"images": np.zeros((1, 28, 28))}, "floats", id="floats"),
        pytest.param({"images": np.full((1, 28, 28), 300)}, "holds 300, which UINT8 cannot", id="too-large"),
        pytest.param({"images": np.full((1, 28, 28), -1, np.int8)}, "holds -1", id="negative"),
        pytest.param({"images": np.full((1, 28, 28), "7")}, "has the type <U1", id="strings"),
    ],
)
def test_infer_refuses_what_does_not_fit(server: FakeServer, inputs: Any, words: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConversionError, match=words):
        ask_sync(server.address, "infer", inputs)
    assert server.count() == 0


def test_the_signature_is_read_once_and_again_on_refresh(server: FakeServer) -> None:
    """Once for a client, however often it is used."""
    with Client(server.address) as client:
        client.predict(images(1))
        client.predict(images(1))
        assert client.model().inputs[0].shape == (-1, 28, 28)
        assert server.count("ModelMetadata") == 1
        client.model(refresh=True)
        assert server.count("ModelMetadata") == 2


def test_scores_alone_are_enough_and_several_are_too_many() -> None:
    """A model with one output of floats [N, classes] is classified by argmax; with two, predict refuses."""
    outputs = (("logits", "FP32", (-1, 3)), ("other", "INT64", (-1,)))
    model = lambda a: {"logits": np.array([[1, 9, 2]] * len(a["images"]), np.float32), "other": a["images"]}  # noqa: E731
    with serve(FakeServer(outputs=outputs, model=model)) as server:
        assert ask_sync(server.address, "predict", images(2)).classes.tolist() == [1, 1]
        assert [output.name for output in server.requests()[0].outputs] == ["logits"]
        server.outputs = (*outputs, ("more", "FP32", (-1, 3)))
        with pytest.raises(ConversionError, match="use infer"):
            ask_sync(server.address, "predict", images(2))


def test_versions_that_changed_in_the_midst_of_a_call_are_all_named(server: FakeServer) -> None:
    """A split call may meet a new version."""
    server.versions = ["3", "4"]
    options = {"rows_per_request": 1, "in_flight": 1}
    assert ask_sync(server.address, "predict", images(2), options=options).version == "3,4"


def test_ready_says_whether_asking_makes_sense(server: FakeServer, ask: Ask) -> None:
    """True when warm, False when not or when nobody is there; an unknown model is raised."""
    assert ask(server.address, "ready") is True
    server.ready = False
    assert ask(server.address, "ready") is False
    assert ask(unused_address(), "ready") is False
    with pytest.raises(ModelNotFound):
        ask(server.address, "ready", options={"model": "other"})


def test_server_describes_itself(server: FakeServer, ask: Ask) -> None:
    """Name, version, extensions, readiness."""
    info = ask(server.address, "server")
    assert (info.name, info.version, info.extensions, info.ready) == ("fake", "0.0", ("parameters",), True)


# --- failures ---


@pytest.mark.parametrize(
    ("code", "kind", "tries"),
    [
        (Code.INVALID_ARGUMENT, InvalidRequest, 1),
        (Code.NOT_FOUND, ModelNotFound, 1),
        (Code.UNAUTHENTICATED, Unauthenticated, 1),
        (Code.PERMISSION_DENIED, Unauthenticated, 1),
        (Code.DEADLINE_EXCEEDED, DeadlineExceeded, 1),
        (Code.UNIMPLEMENTED, ServerFault, 1),
        (Code.UNKNOWN, ServerFault, 1),
        (Code.INTERNAL, ServerFault, 2),
        (Code.RESOURCE_EXHAUSTED, Overloaded, 5),
        (Code.UNAVAILABLE, Unavailable, 5),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_each_status_is_one_exception_and_only_some_are_retried(
    server: FakeServer, ask: Ask, code: Code, kind: type[CallError], tries: int
) -> None:
    """The exception says who, what and how often."""
    server.failures = [Failure(code, "so it is")] * 9
    with pytest.raises(kind, match="so it is") as caught:
        ask(server.address, "predict", images(1))
    error = caught.value
    assert isinstance(error, HorngateError)
    assert (error.code, error.attempts, server.count()) == (code.name, tries, tries)
    assert error.address == server.address
    assert isinstance(error.__cause__, grpc.RpcError)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.attempts) == (str(error), error.code, tries)


def test_an_overload_that_passes_is_not_seen(server: FakeServer, ask: Ask) -> None:
    """Two refusals, each with a pushback that is waited for, then the answer; rows stay in order."""
    server.failures = [Failure(Code.RESOURCE_EXHAUSTED, pushback="60")] * 2
    batch = images(40)
    started = time.monotonic()
    prediction = ask(server.address, "predict", batch, options={"rows_per_request": 10})
    assert time.monotonic() - started >= 0.06
    np.testing.assert_array_equal(prediction.classes, batch[:, 0, 0] % 10)
    assert server.count() == 6


@pytest.mark.parametrize("pushback", ["-1", "later", "60000"], ids=["negative", "unreadable", "past-the-deadline"])
def test_a_pushback_that_rules_out_a_retry_fails_at_once(server: FakeServer, ask: Ask, pushback: str) -> None:
    """Without sleeping, with the server's own reason."""
    server.failures = [Failure(Code.RESOURCE_EXHAUSTED, pushback=pushback)]
    with pytest.raises(Overloaded) as caught:
        ask(server.address, "predict", images(1))
    assert server.count() == 1
    assert caught.value.retry_after == (60.0 if pushback == "60000" else None)


def test_requests_go_round_and_a_dead_address_is_passed_over(server: FakeServer, second: FakeServer, ask: Ask) -> None:
    """Two of three servers live, and every call succeeds; both did work."""
    servers = [unused_address(), server.address, second.address]
    batch = images(60)
    prediction = ask(servers, "predict", batch, options={"rows_per_request": 10})
    np.testing.assert_array_equal(prediction.classes, batch[:, 0, 0] % 10)
    assert server.count() > 0
    assert second.count() > 0


def test_every_call_has_a_finite_deadline_by_default(server: FakeServer, ask: Ask) -> None:
    """Ten seconds for all of it."""
    ask(server.address, "predict", images(1))
    assert all(9 < left < 10.5 for *_, left in server.seen)


def test_the_timeout_bounds_the_whole_call(server: FakeServer, ask: Ask) -> None:
    """A server that keeps it waiting is left, with a TimeoutError."""
    server.gate.clear()
    with pytest.raises(DeadlineExceeded, match="no answer in time") as caught:
        ask(server.address, "predict", images(30), timeout=0.2, options={"rows_per_request": 10})
    assert isinstance(caught.value, TimeoutError)


AskMany = Callable[..., list[Any]]


def ask_many_sync(servers: Any, count: int, **options: Any) -> list[Any]:
    """Predict so often, one after the other, with one blocking client."""
    with Client(servers, **options) as client:
        return [client.predict(images(1)) for _ in range(count)]


def ask_many_async(servers: Any, count: int, **options: Any) -> list[Any]:
    """Predict so often, one after the other, with one async client."""

    async def run() -> list[Any]:
        async with AsyncClient(servers, **options) as client:
            return [await client.predict(images(1)) for _ in range(count)]

    return asyncio.run(run())


@pytest.fixture(params=[ask_many_sync, ask_many_async], ids=["sync", "async"])
def ask_many(request: pytest.FixtureRequest) -> AskMany:
    """Either client, for many calls."""
    return request.param  # type: ignore[no-any-return]


def test_nobody_there_is_unavailable(ask: Ask) -> None:
    """Refused connections are retried, and then said."""
    with pytest.raises(Unavailable, match="tried 5 times"):
        ask(unused_address(), "predict", images(1))


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.slow
def test_a_silent_address_costs_no_call(server: FakeServer, silent: str, ask_many: AskMany) -> None:
    """Twenty calls of three seconds are answered by its neighbour."""
    answers = ask_many([silent, server.address], 20, timeout=3.0)
    assert [len(answer) for answer in answers] == [1] * 20


@pytest.mark.slow
def test_a_server_whose_model_hangs_is_passed_over(server: FakeServer, second: FakeServer, ask_many: AskMany) -> None:
    """It answers probes, so it is tried again now and then, ever less often."""
    second.gate.clear()
    answers = ask_many([second.address, server.address], 20, timeout=2.0)
    assert [len(answer) for answer in answers] == [1] * 20
    assert second.count() <= 3


def test_an_address_comes_back_after_its_server_does(server: FakeServer, second: FakeServer) -> None:
    """A probe finds it, beside the calls."""
    second.failures = [Failure(Code.UNAVAILABLE)]
    with Client([second.address, server.address]) as client:
        deadline = time.monotonic() + 20
        while second.count() < 4 and time.monotonic() < deadline:
            client.predict(images(1))
        assert second.count() >= 4
        assert second.count("ModelReady") == 1


def test_a_call_that_the_server_cancelled_is_sent_again(server: FakeServer, ask: Ask) -> None:
    """A grpcio server that stops does so; the caller did not cancel anything, and sees no cancellation."""
    server.failures = [Failure(Code.CANCELLED)]
    assert len(ask(server.address, "predict", images(1))) == 1
    assert server.count() == 2
    server.failures = [Failure(Code.CANCELLED)] * 9
    with pytest.raises(Unavailable, match="the server cancelled it"):
        ask(server.address, "predict", images(1))


def test_promote_is_sent_once_where_a_server_may_have_seen_it(server: FakeServer, ask: Ask) -> None:
    """Its answer may be lost; a repeat is the operator's decision."""
    server.refuse_load = Failure(Code.UNAVAILABLE, "stopping")
    with pytest.raises(Unavailable, match="stopping"):
        ask(server.address, "promote", "5")
    assert server.count("RepositoryModelLoad") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Client, AsyncClient], ids=["sync", "async"])
def test_a_name_that_moves_is_looked_up_again_before_giving_up(server: FakeServer, kind: type[Any]) -> None:
    """The old address refuses; the call ends at the new one."""
    dead = unused_address()
    answers = iter([[dead]])  # and from then on the new one

    def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("models.test", 8001)
        return next(answers, [server.address])

    moved = type(kind.__name__, (kind,), {"_resolve": staticmethod(resolve)})
    if kind is Client:
        with moved("models.test", timeout=60.0) as client:
            assert len(client.predict(images(1))) == 1
    else:

        async def run() -> None:
            async with moved("models.test", timeout=60.0) as client:
                assert len(await client.predict(images(1))) == 1

        asyncio.run(run())
    assert server.count() == 1


def test_a_name_that_is_not_known_is_said(ask: Ask) -> None:
    """Unavailable, with the resolver's own words, when the time is up."""
    with pytest.raises(Unavailable, match="nowhere.invalid:8001: no address was found: nowhere.invalid cannot be"):
        ask("nowhere.invalid", "predict", images(1), timeout=0.5)


def test_a_message_that_is_too_large_is_no_overload(server: FakeServer) -> None:
    """It is not retried, and the advice is to send fewer rows."""
    server.failures = [Failure(Code.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)")]
    with pytest.raises(InvalidRequest, match="lower rows_per_request"):
        ask_sync(server.address, "predict", images(1))


def test_closing_ends_calls_under_way_and_refuses_new_ones(server: FakeServer) -> None:
    """With ClientClosed, not with a status."""
    server.gate.clear()
    client = Client(server.address)
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            client.predict(images(1))
        except HorngateError as exc:
            outcome.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    assert server.arrived.wait(10)
    client.close()
    thread.join(10)
    assert [type(exc) for exc in outcome] == [ClientClosed]
    with pytest.raises(ClientClosed, match="closed"):
        client.predict(images(1))


def test_closing_an_async_client_ends_calls_under_way(server: FakeServer) -> None:
    """The caller sees ClientClosed, not a cancellation that it did not ask for."""
    server.gate.clear()

    async def run() -> None:
        client = AsyncClient(server.address)
        call = asyncio.create_task(client.predict(images(1)))
        await asyncio.to_thread(server.arrived.wait, 10)
        await client.close()
        with pytest.raises(ClientClosed):
            await call

    asyncio.run(run())


@pytest.mark.parametrize("rows", [1, 12], ids=["alone", "split"])
def test_closing_amid_many_calls_is_client_closed_for_each(server: FakeServer, rows: int) -> None:
    """However far each one is: about to be sent, or in flight."""
    seen: list[str] = []
    entered = threading.Semaphore(0)

    def work(client: Client) -> None:
        try:
            while True:
                client.predict(images(rows))
                entered.release()
        except HorngateError as exc:
            seen.append(type(exc).__name__)

    for _ in range(4):
        client = Client(server.address, rows_per_request=4)
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        assert all(entered.acquire(timeout=10) for _ in range(20))
        client.close()
        for thread in threads:
            thread.join(10)
    assert seen == ["ClientClosed"] * 48


@pytest.mark.parametrize("rows", [1, 12], ids=["alone", "split"])
def test_closing_an_async_client_amid_many_calls_is_client_closed_for_each(server: FakeServer, rows: int) -> None:
    """As with the blocking one."""

    async def work(client: AsyncClient, met: asyncio.Event) -> str:
        try:
            while True:
                await client.predict(images(rows))
                met.set()
        except HorngateError as exc:
            return type(exc).__name__

    async def run() -> list[str]:
        client, met = AsyncClient(server.address, rows_per_request=4), asyncio.Event()
        callers = [asyncio.create_task(work(client, met)) for _ in range(12)]
        await met.wait()
        await client.close()
        return await asyncio.gather(*callers)

    for _ in range(4):
        assert asyncio.run(run()) == ["ClientClosed"] * 12


def test_closing_ends_the_wait_for_a_retry(server: FakeServer) -> None:
    """It is not slept to its end."""
    server.failures = [Failure(Code.RESOURCE_EXHAUSTED, pushback="600000")] * 9
    client = Client(server.address, timeout=3600.0)
    outcome: list[type] = []

    def work() -> None:
        try:
            client.predict(images(12))
        except HorngateError as exc:
            outcome.append(type(exc))

    thread = threading.Thread(target=work)
    thread.start()
    assert server.arrived.wait(10)
    client.close()
    thread.join(10)
    assert outcome == [ClientClosed]


def test_cancelling_an_async_call_cancels_its_requests(server: FakeServer) -> None:
    """And the client works on."""
    server.gate.clear()

    async def run() -> None:
        async with AsyncClient(server.address, rows_per_request=5) as client:
            call = asyncio.create_task(client.predict(images(20)))
            await asyncio.to_thread(server.arrived.wait, 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            server.gate.set()
            assert len(await client.predict(images(3))) == 3

    asyncio.run(run())


def drop_rows(response: Any) -> None:
    """Answer with a row too few."""
    for output, raw in zip(response.outputs, list(response.raw_output_contents), strict=True):
        size = len(raw) // output.shape[0]
        output.shape[0] -= 1
        response.raw_output_contents.append(raw[size:])
    del response.raw_output_contents[: len(response.outputs)]


MANGLERS: list[Any] = [
    pytest.param(drop_rows, "5 rows were asked", id="too-few-rows"),
    pytest.param(lambda r: r.raw_output_contents.pop(), "names 2 outputs and carries bytes for 1", id="bytes-missing"),
    pytest.param(lambda r: r.outputs[0].shape.append(2), "bytes, and", id="bytes-short"),
    pytest.param(lambda r: setattr(r.outputs[0], "datatype", "FP8"), "unknown datatype 'FP8'", id="datatype"),
    pytest.param(lambda r: setattr(r.outputs[1], "name", "klasses"), "lacks the output 'classes'", id="name"),
    pytest.param(lambda r: r.ClearField("raw_output_contents"), "values, and 0 came", id="no-values"),
]


@pytest.mark.parametrize(("mangle", "words"), MANGLERS)
def test_an_answer_that_cannot_be_one_is_a_protocol_error(server: FakeServer, mangle: Any, words: str) -> None:
    """A wrong number of rows would give a caller another's answer."""
    server.mangle = mangle
    with pytest.raises(ProtocolError, match=words):
        ask_sync(server.address, "predict", images(5))


# --- options ---


def test_bulk_says_so_with_every_call(server: FakeServer, ask: Ask) -> None:
    """As metadata, which any protocol's request can have; interactive callers say nothing."""
    for bulk, said in ((False, None), (True, "bulk")):
        server.seen.clear()
        ask(server.address, "predict", images(1), options={"bulk": bulk})
        assert {metadata.get("horngate-priority") for _, _, metadata, _ in server.seen} == {said}


def test_the_token_travels_and_is_shown_nowhere(server: FakeServer, ask: Ask) -> None:
    """As a bearer token; to this machine itself even without TLS."""
    server.token = "secret"
    assert len(ask(server.address, "predict", images(1), options={"token": "secret"})) == 1
    with pytest.raises(Unauthenticated):
        ask(server.address, "predict", images(1))
    assert "secret" not in repr(Client(server.address, token="secret").__dict__)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_checks_the_server_and_carries_the_token(tmp_path: Path, ask: Ask) -> None:
    """A server of an authority that is not trusted is not spoken to."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=models"
    names = ["-addext", "subjectAltName=DNS:models.test", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*make.split(), *names], check=True, capture_output=True)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    with serve(FakeServer(token="secret"), tls=credentials) as server:
        trusted = TlsConfig(ca=cert, server_name="models.test")
        options = {"tls": trusted, "token": "secret"}
        assert len(ask(server.address, "predict", images(1), options=options)) == 1
        with pytest.raises(Unavailable, match=r"(?i)certificate|handshake|ssl"):
            ask(server.address, "predict", images(1), options=options | {"tls": True})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"servers": "models.example.com", "token": "t"}, "readable by anyone"),
        ({"servers": "a,localhost:1", "token": "t"}, "readable by anyone"),
        ({"token": "a b"}, "token"),
        ({"token": ""}, "token"),
        ({"servers": []}, "no server"),
        ({"servers": "a,,b"}, "empty"),
        ({"servers": "http://a:8002"}, "without a scheme"),
        ({"servers": "a:99999"}, "no address"),
        ({"servers": "::1"}, "brackets"),
        ({"timeout": 0}, "positive"),
        ({"timeout": float("inf")}, "finite"),
        ({"timeout": float("nan")}, "finite"),
        ({"rows_per_request": 0}, "at least 1"),
        ({"model": ""}, "empty"),
        ({"tls": TlsConfig(ca="missing.pem")}, "cannot be read"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    """With a ConfigurationError, which is a ValueError."""
    with pytest.raises(ConfigurationError, match=words):
        Client(**options)


@pytest.mark.parametrize("address", ["a", "a:1", "[::1]", "[::1]:9", "unix:/tmp/s", "dns:///a:1", "10.0.0.1:5"])
def test_addresses_are_written_in_the_usual_ways(address: str) -> None:
    """The port is 8001 where none is given."""
    with Client(address) as client:
        assert address in repr(client)
        assert (":8001" in repr(client)) == (address in {"a", "[::1]"})


def test_localhost_finds_a_server_on_one_of_its_addresses(server: FakeServer) -> None:
    """Localhost is ::1 as well, where nobody listens here."""
    assert len(ask_sync(server.address.replace("127.0.0.1", "localhost"), "predict", images(1))) == 1


def test_both_clients_have_the_same_surface() -> None:
    """Public names, parameters and results agree; only the context managers differ."""

    def surface(kind: type) -> dict[str, Any]:
        members = inspect.getmembers(kind, inspect.isfunction)
        signatures = {name: inspect.signature(f) for name, f in members if not name.startswith("_")}
        return {"new": inspect.signature(kind), **signatures}

    assert surface(Client) == surface(AsyncClient)
    assert set(surface(Client)) == {
        "new",
        "predict",
        "explain",
        "infer",
        "model",
        "models",
        "promote",
        "ready",
        "recorded",
        "server",
        "close",
    }


def unused_address() -> str:
    """Return an address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
