"""Whether traffic is welcome."""

from horngate_server.lifecycle.readiness import Readiness


def test_not_serving_until_told_so_and_never_again_after_shutting_down() -> None:
    """Readiness starts with nothing serving, and shutting down is final."""
    readiness = Readiness()
    assert not readiness.serving()
    readiness.set("", serving=True)
    assert readiness.serving()
    readiness.shut_down()
    readiness.set("", serving=True)
    assert not readiness.serving()
