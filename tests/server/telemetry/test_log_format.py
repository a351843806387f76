"""How log lines look."""

import json
import logging

import pytest

from support.logging_setup import set_up


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
