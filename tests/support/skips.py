"""The reasons for which a test may be skipped. For any other one it fails: what is left out unnoticed is not tested.

A pytest plugin; `conftest` has its hook.
"""

import os
from collections.abc import Generator

import pytest

ANYWHERE = (
    "pyvoy is not installed",
    "this Python has no shared libpython",
    "no Envoy here",
    "this machine has a GPU",
)
"""How such reasons begin: what they say is tested in another job, or by nobody here."""
OUTSIDE_CI = (
    "atheris has no wheel for this machine",
    "no C compiler",
    "no chromium on this machine",
    "no curl on this machine",
    "no go on this machine",
    "no java on this machine",
    "no kubectl on this machine",
    "no npm registry can be reached",
    "no prometheus here",
    "openssl makes the certificate",
    "slowhttptest is not installed",
)
"""The same, for what CI has, and a developer may not have."""


def allowed(reason: str, *, in_ci: bool) -> bool:
    """Say whether a test may be skipped for this reason."""
    return reason.startswith(ANYWHERE if in_ci else ANYWHERE + OUTSIDE_CI)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of what was skipped and may not be."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not allowed(reason, in_ci="CI" in os.environ):
            report.outcome = "failed"
            report.longrepr = f"skipped: {reason}; expected one of the reasons in tests/support/skips.py"
    return report
