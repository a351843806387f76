"""The console's files: ours alone, all of them reached, and nothing in them that its policy forbids."""

import re

import pytest

from horngate_server.transports.http.console_files import headers, shown

FILES = {path: file for path, file in shown().items() if not path.startswith("/console/tfjs")}
"""TensorFlow.js, where a wheel has it, is not ours."""
TEXT = {path: file.body.decode() for path, file in FILES.items()}
REFERENCE = re.compile(r"""(?:src|href|from) ?=? ?"(\.?/[^"#]*)\"""")


def test_all_that_a_file_names_is_there_and_each_file_is_named() -> None:
    """From the page on: scripts, styles and pictures; the bundle of TensorFlow.js may be missing."""
    seen, left = set(), ["/"]
    while left:
        path = left.pop()
        if path not in seen:
            seen.add(path)
            left += [re.sub(r"^\./", "/console/", named) for named in REFERENCE.findall(TEXT[path])]
    assert seen | {"/console/index.html"} == set(FILES)


@pytest.mark.parametrize("path", sorted(TEXT))
def test_no_file_names_another_host(path: str) -> None:
    """Only SVG's namespace, which nobody fetches, and the caller's own address in the code to copy."""
    hosts = set(re.findall(r"\b(?:https?|wss?)://([^/\"'`\s]+)", TEXT[path]))
    assert hosts <= {"www.w3.org", "${location.hostname}:8001"}


def test_the_page_has_no_script_and_no_style_in_its_text() -> None:
    """Nor an element's own: the policy would not let them work."""
    page = TEXT["/"]
    assert re.findall(r"<script[^>]*>([^<]*)</script>", page) == [""]
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)


def test_the_policy_lets_nothing_in_but_this_server() -> None:
    """Scripts, styles and answers from here, by whoever the page is not framed by."""
    policy = dict(headers())[b"content-security-policy"].decode()
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "unsafe-eval'" not in policy.replace("'wasm-unsafe-eval'", "")
