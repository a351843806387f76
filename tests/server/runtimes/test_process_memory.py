"""Which pages are given back: those of the engines and Envoy, as far as nothing was written into them."""

from pathlib import Path

import pytest

from horngate_server.runtimes import process_memory

CLEAN, WRITTEN = (
    "Private_Dirty:         0 kB\nAnonymous:             0 kB",
    "Private_Dirty:         4 kB\nAnonymous:             4 kB",
)


@pytest.mark.parametrize(
    ("path", "permissions", "pages", "given_back"),
    [
        ("/site-packages/tensorflow/libtensorflow_cc.so.2", "r-xp", CLEAN, True),
        ("/site-packages/ai_edge_litert/libLiteRt.so", "r--p", CLEAN, True),
        ("/site-packages/envoy/_bin/envoy", "r-xp", CLEAN, True),
        ("/site-packages/envoy/_bin/envoy", "r--p", WRITTEN, False),
        ("/site-packages/envoy/_bin/envoy", "rw-p", CLEAN, False),
        ("/models/envoy/libelse.so", "r-xp", CLEAN, False),
    ],
)
def test_only_clean_pages_of_the_engines_and_of_envoy_are_given_back(
    path: str, permissions: str, pages: str, given_back: bool
) -> None:
    """Written pages live in private copies, which would be lost."""
    smaps = f"1000-3000 {permissions} 00000000 fe:00 77 {path}\nRss:  8 kB\nShared_Dirty: 0 kB\n{pages}\n"
    assert list(process_memory._clean(smaps)) == ([(0x1000, 0x3000, 8192)] if given_back else [])


def test_a_system_without_proc_gives_nothing_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on macOS."""
    monkeypatch.setattr(process_memory, "SMAPS", tmp_path / "none")
    assert process_memory.release() == 0
