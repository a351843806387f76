"""What native code writes becomes log lines."""

import logging
from contextlib import ExitStack

import pytest

from horngate_server.runtimes import native_log
from horngate_server.telemetry import log_format
from support.logging_setup import set_up


def test_the_servers_own_lines_are_not_taken_for_tensorflows(capfd: pytest.CaptureFixture[str]) -> None:
    """While native code's lines are collected, those of other threads go where they belong, at once."""
    with set_up("text"), native_log.captured() as complaints:
        logging.getLogger("horngate").error("answered")
        log_format.flush()
        said, collected = capfd.readouterr().err, complaints()
    assert said.endswith("error   answered\n")
    assert collected == []


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
