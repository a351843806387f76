"""Status, costs, ladder, health, refusals, logs: rooms too small for a file each."""

import asyncio
import json
import logging
import shlex
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import inf

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from hypothesis import given
from hypothesis import strategies as st

from horngate_protos.rpc_status_pb2 import RetryInfo
from horngate_protos.rpc_status_pb2 import Status as RpcStatus
from horngate_server.core import errors
from horngate_server.core.rate_limited_log import RateLimitedLog
from horngate_server.core.request_context import RequestContext
from horngate_server.core.rpc import Call, PendingReply
from horngate_server.core.settings import Settings
from horngate_server.engine.batching import ladder
from horngate_server.engine.cost_model import KINDS, CostModel
from horngate_server.lifecycle.readiness import Readiness
from horngate_server.process import launch
from horngate_server.protocols import grpc_status
from horngate_server.runtimes import native_log
from horngate_server.services.health import Health
from horngate_server.telemetry import access_log, log_format
from horngate_server.telemetry.refusal_log import RefusalLog
from horngate_server.telemetry.request_record import RequestRecord
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.call_collector import CallCollector
from horngate_server.transports.pyvoy import envoy
from support.desk import OPTIONS, Clock


def _below(error: type[errors.RequestError]) -> Iterator[type[errors.RequestError]]:
    for each in error.__subclasses__():
        yield each
        yield from _below(each)


def test_every_domain_error_has_a_status() -> None:
    """No error that a caller can cause, or suffer, is left without a gRPC code."""
    assert set(_below(errors.RequestError)) == set(grpc_status.CODES)


def test_try_later_and_never_are_different_codes() -> None:
    """What clients retry (UNAVAILABLE, RESOURCE_EXHAUSTED) and cannot succeed says that nobody should come back."""
    retried = {
        kind.__name__ for kind, code in grpc_status.CODES.items() if code.name in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
    }
    assert retried == {"QueueFull", "NotReady", "MessageTooLarge", "OutOfMemory"}
    for error in (errors.MessageTooLarge("x"), errors.OutOfMemory("x")):
        assert dict(grpc_status.status_of(error).trailers) == {"grpc-retry-pushback-ms": "-1"}


def test_a_full_queue_tells_clients_when_to_come_back_in_both_dialects() -> None:
    """GRPC's pushback metadata and google.rpc.RetryInfo carry the same delay."""
    refused = grpc_status.status_of(errors.QueueFull("full", retry_after_s=0.25))
    trailers = dict(refused.trailers)
    assert trailers["grpc-retry-pushback-ms"] == "250"
    raw = trailers["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    details: AnyMessage = RpcStatus.FromString(raw).details[0]
    assert RetryInfo.FromString(details.value).retry_delay.ToMilliseconds() == 250


def test_long_messages_are_cut_to_what_a_header_can_carry() -> None:
    """A message made of a caller's own megabyte cannot break the answer."""
    assert len(grpc_status.status_of(errors.InvalidRequest("x" * 10**6)).message) == grpc_status.MESSAGE_CHARACTERS


@pytest.mark.parametrize(("top", "rungs"), [(1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (10, (1, 2, 4, 8, 10))])
def test_the_ladder_climbs_in_powers_of_two_and_ends_at_the_limit(top: int, rungs: tuple[int, ...]) -> None:
    """Every batch size up to the limit has a rung at most twice its size."""
    assert ladder(top) == rungs


def test_costs_follow_measurements_without_believing_a_single_hiccup() -> None:
    """One slow run moves the estimate by a tenth of its surprise."""
    costs = CostModel(ladder(8))
    assert costs.wait(100) == 0.0
    costs.measured("s", 8, 1.0, 0.0)
    costs.measured("s", 8, 11.0, 0.0)
    assert costs.wait(8) == pytest.approx(2.0)
    assert costs.least("s", 5, 0.0) == pytest.approx(2.0)
    assert costs.report("s") == {8: pytest.approx(2.0)}


def test_a_batch_is_expected_to_take_what_its_size_took_lately_and_for_ever_if_it_never_ran() -> None:
    """A size that never ran, or was slow just now, is not taken for quick."""
    costs = CostModel(ladder(8))
    assert costs.expected("s", 3) == float("inf")
    costs.measured("s", 4, 0.001, 0.0)
    assert costs.expected("s", 3) == 0.001
    costs.measured("s", 4, 1.0, 0.0)
    assert costs.expected("s", 4) == 1.0


def test_an_old_measurement_or_another_kinds_says_nothing_about_a_request() -> None:
    """What a run takes at least is known for ten seconds after one of its own kind and size, and then no more."""
    costs = CostModel(ladder(8))
    costs.measured("large", 1, 4.5, 0.0)
    assert costs.least("small", 1, 0.0) is None
    assert costs.least("large", 1, 10.0) == 4.5
    assert costs.least("large", 1, 10.1) is None


def test_one_fast_run_is_believed_at_once_when_it_comes_to_refusing() -> None:
    """The least that a run takes is the smaller one of the average and the last time."""
    costs = CostModel(ladder(8))
    costs.measured("s", 1, 4.0, 0.0)
    costs.measured("s", 1, 0.008, 1.0)
    assert costs.least("s", 1, 1.0) == 0.008


def test_the_cheapest_kind_of_row_is_what_waiting_rows_cost_at_least() -> None:
    """Of several kinds the least counts, also after it has become dearer."""
    costs = CostModel(ladder(8))
    costs.measured("large", 1, 4.0, 0.0)
    costs.measured("small", 4, 1.0, 0.0)
    assert costs.wait(8) == 2.0
    for _ in range(1000):
        costs.measured("small", 4, 80.0, 0.0)
    assert costs.wait(2) == 8.0


def test_batches_beyond_the_ladder_are_taken_for_the_next_power_of_two() -> None:
    """A request that has a run of its own may be larger than any batch."""
    assert CostModel(ladder(6)).rung(7) == 8
    assert CostModel(ladder(6)).rung(5) == 6


def test_the_kinds_whose_costs_are_remembered_are_bounded() -> None:
    """Callers can make any number of kinds with free axes; the oldest ones are forgotten."""
    costs = CostModel(ladder(8))
    for kind in range(KINDS + 1):
        costs.measured(kind, 1, 1.0, 0.0)
    assert costs.least(0, 1, 0.0) is None
    assert costs.least(KINDS, 1, 0.0) == 1.0


def test_not_serving_until_told_so_and_never_again_after_shutting_down() -> None:
    """Readiness starts with nothing serving, and shutting down is final."""
    readiness = Readiness()
    assert not readiness.serving()
    readiness.set("", serving=True)
    assert readiness.serving()
    readiness.shut_down()
    readiness.set("", serving=True)
    assert not readiness.serving()


def test_a_watcher_that_asks_for_nothing_is_refused() -> None:
    """A stream that ends without its message is not left open."""

    async def nothing() -> AsyncIterator[bytes]:
        for message in list[bytes]():
            yield message

    async def watch() -> None:
        async for _ in Health(Readiness()).watch(nothing(), OPTIONS):
            raise AssertionError("nothing was asked")

    with pytest.raises(errors.InvalidRequest, match="the stream ended without a message"):
        asyncio.run(watch())


def test_a_watcher_sees_each_change_once_and_leaves_nothing_behind() -> None:
    """Watch answers at once, then on changes; an unknown name is SERVICE_UNKNOWN until it appears."""
    readiness = Readiness()

    async def name() -> AsyncIterator[bytes]:
        yield HealthCheckRequest(service="m").SerializeToString()

    async def watch() -> list[int]:
        watcher = Health(readiness).watch(name(), OPTIONS)
        seen = [HealthCheckResponse.FromString(await anext(watcher)).status]
        changes: list[Callable[[], None]] = [
            lambda: readiness.set("other", serving=True),
            lambda: readiness.set("m", serving=True),
            readiness.shut_down,
        ]
        for change in changes:
            change()
            if len(seen) < 3 and readiness.state("m") is not None:
                seen.append(HealthCheckResponse.FromString(await anext(watcher)).status)
        await watcher.aclose()  # type: ignore[attr-defined, unused-ignore]
        return seen

    seen = asyncio.run(watch())
    assert [HealthCheckResponse.ServingStatus.Name(state) for state in seen] == [
        "SERVICE_UNKNOWN", "SERVING", "NOT_SERVING",
    ]  # fmt: skip
    assert not readiness._watchers


def test_a_burst_of_refusals_is_one_line_and_its_count_comes_with_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """The first refusal is logged; the others are counted into the next line, ten seconds later."""
    clock = Clock()
    refusals = RefusalLog(clock)
    for _ in range(1000):
        refusals.note("queue_full", "no room")
    clock.now += 10
    refusals.note("queue_full", "still no room")
    assert [record.message for record in caplog.records] == [
        "refused a request (queue_full): no room",
        "refused a request (queue_full): still no room (and 999 more like it since the last line)",
    ]


def test_lines_of_a_kind_are_at_most_one_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    """Another kind has lines of its own, and what was left out is told once the interval is over, by whatever comes."""
    clock = Clock()
    lines = RateLimitedLog(logging.getLogger("test"), clock, every_s=2.0)
    for number in range(5):
        lines.note("a", logging.WARNING, "a%d", number)
    lines.note("b", logging.WARNING, "b")
    lines.flush()
    assert [record.getMessage() for record in caplog.records] == ["a0", "b"]
    clock.now += 2
    lines.note("c", logging.WARNING, "c")
    assert [record.getMessage() for record in caplog.records][2:] == [
        "c", "a4 (the last of 4 like it that were left out)",
    ]  # fmt: skip
    lines.note("c", logging.WARNING, "d")
    lines.flush(everything=True)
    assert caplog.records[-1].getMessage() == "d (the last of 1 like it that were left out)"
    assert not lines._kinds


def test_a_rate_limited_line_may_carry_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """An error's traceback comes with the line that is written, at its level."""
    lines = RateLimitedLog(logging.getLogger("test"), Clock())
    lines.note("a", logging.ERROR, "%s failed", "x", exc_info=ValueError("why"))
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "x failed")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "why"


@contextmanager
def set_up(style: str) -> Iterator[None]:
    """Log as the server does, meanwhile."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:] = []  # those of before must not be closed
    try:
        log_format.set_up(style, "info")
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:], root.level = before


def test_json_log_lines_are_one_object_each(capfd: pytest.CaptureFixture[str]) -> None:
    """A collector can parse every line, exceptions included."""
    with set_up("json"):
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("horngate").exception("what")
    (line,) = capfd.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["message"]) == ("error", "what")
    assert "ValueError: why" in entry["exception"]


def test_a_log_line_is_one_line_whatever_callers_send(capfd: pytest.CaptureFixture[str]) -> None:
    """Ends of lines are escaped, in text as in JSON: nobody writes lines of their own into the log."""
    forged = "id\n2026-11-25T00:00:00.000Z error   stopped\r\x1b[31m\u2028"
    for style in ("text", "json"):
        with set_up(style):
            logging.getLogger("horngate").info("request id=%s", forged)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert json.loads(lines[1])["message"] == f"request id={forged}"


def test_the_servers_own_lines_are_not_taken_for_tensorflows(capfd: pytest.CaptureFixture[str]) -> None:
    """While native code's lines are collected, those of other threads go where they belong, at once."""
    with set_up("text"), native_log.captured() as complaints:
        logging.getLogger("horngate").error("answered")
        log_format.flush()
        said, collected = capfd.readouterr().err, complaints()
    assert said.endswith("error   answered\n")
    assert collected == []


def test_an_access_log_line_can_be_split_again(caplog: pytest.LogCaptureFixture) -> None:
    """Values with spaces, quotes or equal signs are quoted, ids of any length are cut, and nothing else is."""
    origin = RequestContext("a", "", "", "", traced=False, logged=True)
    ended = RequestRecord(
        origin, "oip", "m", "3", 2, 'x" code=OK ' + "y" * 500, "NOT_FOUND", "no such thing", 0, inf, inf, 1.5
    )
    with caplog.at_level(logging.INFO):
        access_log.write(ended)
    (record,) = caplog.records
    words = shlex.split(record.message)
    assert words[:8] == [
        "request", "client=a", "protocol=oip", "model=m", "version=3", "rows=2", "code=NOT_FOUND", "total_ms=1500.0",
    ]  # fmt: skip
    assert words[8] == ('request_id=x" code=OK ' + "y" * 500)[: len("request_id=") + 128]
    assert words[9:] == ["error=no such thing"]


def test_what_native_code_writes_to_stderr_becomes_log_lines(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The worst of it is one line of its severity; all of it is there when debugging."""
    import os  # noqa: PLC0415

    with caplog.at_level(logging.DEBUG), capfd.disabled(), native_log.captured() as complaints:
        os.write(2, b"I0000 00:00:1.5  10 port.cc:153] chatter\nW0000 00:00:1.5  10 gpu.cc:1] no libcudnn\n")
        assert complaints() == ["no libcudnn"]
    levels = {record.message: record.levelname for record in caplog.records}
    assert levels == {
        "tensorflow: chatter": "DEBUG",
        "tensorflow: no libcudnn": "DEBUG",
        "tensorflow: no libcudnn (the worst of 2 lines)": "WARNING",
    }


def test_native_code_is_heard_by_all_who_listen_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Models load beside each other: whoever ends first takes nothing from the other, and stderr is itself again."""
    import os  # noqa: PLC0415

    with capfd.disabled():
        before = os.fstat(2).st_ino
        with ExitStack() as first, native_log.captured() as second_hears:
            first_hears = first.enter_context(native_log.captured())
            os.write(2, b"E0000 00:00:1.5  10 a.cc:1] both\n")
            assert first_hears() == second_hears() == ["both"]
            first.close()
            os.write(2, b"E0000 00:00:1.5  10 a.cc:1] one\n")
            assert second_hears() == ["both", "one"]
        assert os.fstat(2).st_ino == before


def test_calls_that_are_held_back_are_handed_over_together_once_no_further_ones_come() -> None:
    """A drain waits until all callers wait for an answer; none of their calls is lost."""

    async def run() -> None:
        batches: list[list[Call]] = []
        collector = CallCollector(lambda calls: batches.append(list(calls)))
        call = Call("/s/m", b"", inf, PendingReply())
        with collector.holding():
            collector.take(call)
            await collector.silence(0.001, 10.0)
            collector.take(call)
            assert not batches
        assert batches == [[call, call]]
        collector.take(call)
        await asyncio.sleep(0)
        assert batches[1:] == [[call]]

    asyncio.run(run())


def test_memory_has_room_again_when_it_is_given_back() -> None:
    """Bytes are taken up to the limit, refused beyond it with a time to come back, and free again after."""
    memory = ByteBudget(100)
    memory.take(60)
    with pytest.raises(errors.QueueFull, match="60 bytes of requests are in memory, no room for 41 more") as refused:
        memory.take(41)
    assert refused.value.retry_after_s > 0
    memory.give(60)
    memory.take(100)


@given(st.integers(1, (1 << 31) - 1), st.integers(1, 1 << 20))
def test_what_envoy_holds_of_all_connections_is_bounded_as_requests_are(size: int, connections: int) -> None:
    """A connection's window is its share of --max-request-bytes, where that is enough to be of use."""
    window = launch.listener(Settings(max_request_bytes=size, max_connections=connections), 1).window_bytes
    least, most = envoy.WINDOW_BYTES
    assert least <= window <= most
    assert window * connections <= max(size, least * connections)
    assert window in (most, least) or (window + 1) * connections > size
