"""The console: what the HTTP port serves for it, and what a person with a browser sees and does."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from horngate_server.transports.access import tokens
from support.node_packages import NO_REGISTRY, installed
from support.process import ServerProcess

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
DOORS = ("/", "/console/main.js", "/console/console.css", "/console/icon.svg")
SHARE_ON_STROKES = """() => {
  const pixels = (name) => {
    const canvas = document.querySelector(name);
    return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  };
  const [drawn, why] = [pixels(".preview"), pixels(".overlay")];
  let [on, all] = [0, 0];
  for (let at = 0; at < why.length; at += 4) {
    all += why[at + 3];
    if (drawn[at]) on += why[at + 3];
  }
  return on / all;
}"""
LOAD = "/v2/repository/models/mnist/load"
UNLOAD = "/v2/repository/models/mnist/unload"


def ask(
    server: ServerProcess, path: str, method: str = "GET", body: object = None, token: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """Return an answer's status, headers and body."""
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.http + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@pytest.fixture(scope="module")
def models(trained: Path, foreign_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of the digits, and a model of two inputs that are no images."""
    root = tmp_path_factory.mktemp("console") / "models"
    for number in ("1", "2"):
        shutil.copytree(trained, root / "mnist" / number)
    shutil.copytree(foreign_models / "several", root / "several")
    return root


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that lets everyone in, and takes administrators' calls."""
    with ServerProcess(models, tmp_path_factory.mktemp("open"), "--admin") as running:
        yield running


class Guarded(ServerProcess):
    """A server with tokens: one for an administrator, one for somebody else."""

    def __init__(self, models: Path, scratch: Path) -> None:
        file = scratch / "tokens"
        self.admin = tokens.add(file, "root", admin=True)
        self.user = tokens.add(file, "alice", admin=False)
        super().__init__(models, scratch, "--admin", "--tokens", str(file))


@pytest.fixture(scope="module")
def guarded(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server that lets only callers with a token in."""
    with Guarded(models, tmp_path_factory.mktemp("guarded")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without anything of anybody's in it."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def page_of(
    browser: Browser, server: ServerProcess, *, width: int = 1200, errors: tuple[str, ...] = ()
) -> Iterator[Page]:
    """Open the console; at the end nothing has gone wrong in it, and nobody else was asked for anything."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    said: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.goto(server.http + "/")
    yield page
    assert [text for text in said if not any(known in text for known in errors)] == []
    assert hosts == {urlsplit(server.http).netloc}
    assert context.cookies() == []
    context.close()


def draw_seven(page: Page) -> None:
    """Draw it by mouse, in two strokes without lifting."""
    box = page.locator("#pad").bounding_box()
    assert box
    left, top, side = box["x"], box["y"], box["width"]
    page.mouse.move(left + 0.25 * side, top + 0.22 * side)
    page.mouse.down()
    page.mouse.move(left + 0.75 * side, top + 0.22 * side, steps=12)
    page.mouse.move(left + 0.42 * side, top + 0.85 * side, steps=14)
    page.mouse.up()


@pytest.mark.parametrize("workers", ["1", "2"], ids=["one-process", "two-workers"])
def test_the_files_have_a_strict_policy_on_every_server(
    trained: Path, transport: str, workers: str, tmp_path: Path
) -> None:
    """They are read alone, whatever else is asked for under their folder is not there, and /v2 stays as it was."""
    flags = ["--transport", transport, "--workers", workers]
    with ServerProcess(trained.parents[1], tmp_path, *flags) as server:
        for path in DOORS:
            status, headers, body = ask(server, path)
            assert status == 200, path
            assert body
            assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert "set-cookie" not in headers
            assert ask(server, path, "POST", {})[0] == 405
        for path in ("/console", "/console/", "/console/../server.py", "/console/%2e%2e/server.py", "/console/none.js"):
            assert ask(server, path)[0] == 404, path
        assert ask(server, LOAD)[0] == 405  # nothing is changed by GET
        status, _, body = ask(server, LOAD, "POST", {})
        assert status == 501
        assert b"start it with --admin" in body
        status, _, body = ask(server, "/v2/repository/index", "POST")
        assert (status, [each["state"] for each in json.loads(body)]) == (200, ["READY"])


def test_without_the_console_its_paths_are_not_there(trained: Path, tmp_path: Path) -> None:
    """--console off: the port is as it was before there was one."""
    with ServerProcess(trained.parents[1], tmp_path, "--console", "off") as server:
        assert [ask(server, path)[0] for path in DOORS] == [404] * len(DOORS)
        assert ask(server, "/models")[0] == 200


def test_what_is_served_is_changed_over_http_by_an_admins_token_alone(server: ServerProcess, guarded: Guarded) -> None:
    """Where there are no tokens, any page in the administrator's browser could do it: nobody may."""
    status, _, body = ask(server, UNLOAD, "POST", {})
    assert (status, b"by a token alone" in body) == (403, True)
    assert ask(guarded, UNLOAD, "POST", {})[0] == 401
    assert ask(guarded, UNLOAD, "POST", {}, guarded.user)[0] == 403
    promotion = {"parameters": {"version": 1, "label": "old"}}
    wrong: object
    for wrong in ({"parameters": {"version": "x"}}, {"parameters": {"version": True}}, {"parameters": {"of": 1}}, []):
        assert ask(guarded, LOAD, "POST", wrong, guarded.admin)[0] == 400, wrong
    assert ask(guarded, LOAD, "POST", promotion, guarded.admin)[0] == 200
    served = {
        each["version"]: each["labels"] for each in json.loads(ask(guarded, "/models")[2]) if each["name"] == "mnist"
    }
    assert served == {1: ["old"], 2: [""]}


@needs_browser
def test_a_seven_drawn_by_mouse_is_a_seven(browser: Browser, server: ServerProcess) -> None:
    """With its probability, its bars, its times and the same call as code; a digit of the test images is one, too."""
    with page_of(browser, server) as page:
        expect(page.locator("#title")).to_have_text("mnist")
        expect(page.get_by_text("once the server runs with --tokens")).to_be_visible()
        expect(page.get_by_role("button", name="Promote")).to_have_count(0)
        draw_seven(page)
        expect(page.locator("#answer")).to_have_text("7")
        expect(page.locator(".bars li")).to_have_count(10)
        expect(page.locator(".scores [role=status]")).to_contain_text("The model says 7")
        expect(page.locator(".legend")).to_contain_text("µs")
        page.get_by_text("The same call as code").click()
        page.get_by_role("tab", name="Python").press("ArrowRight")
        expect(page.locator("#snippet")).to_contain_text("curl -s 'http://")
        page.get_by_role("button", name="Test digit 2").click()
        expect(page.locator("#answer")).to_have_text("2")
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#answer")).to_have_text("\u2013")
        requests = page.get_by_role("article", name="Requests")
        expect(requests.locator(".facts")).not_to_contain_text("in all0")


@needs_browser
@pytest.mark.parametrize(
    ("language", "command", "answered"),
    [
        pytest.param("Python", [sys.executable, "-c"], "sum[1,2][3.0,4.0]", id="python"),
        pytest.param("buf curl", ["sh", "-c"], '"fp32Contents":[3,4]', id="buf"),
    ],
)
def test_the_code_to_copy_gives_the_same_answer(
    browser: Browser, server: ServerProcess, language: str, command: list[str], answered: str
) -> None:
    """Run as it stands, but for the gRPC port, which the page does not know."""
    with page_of(browser, server) as page:
        page.locator("#model").select_option("several")
        page.get_by_label("a", exact=True).fill("[3, 4]")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".output")).to_have_count(2)
        page.get_by_text("The same call as code").click()
        page.get_by_role("tab", name=language).click()
        expect(page.locator("#snippet")).to_contain_text("import" if language == "Python" else language)
        code = page.locator("#snippet").inner_text().replace("localhost:8001", server.grpc)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*command, code], capture_output=True, text=True, check=True, timeout=30, env={**os.environ, "PATH": path}
    )
    assert answered in re.sub(r"\s", "", done.stdout)


@needs_browser
def test_a_model_of_other_inputs_is_asked_by_a_form(browser: Browser, server: ServerProcess) -> None:
    """A field for each input; what is no value of it is said at once, and what the server refuses in its words."""
    with page_of(browser, server, errors=("400",)) as page:
        page.locator("#model").select_option("several")
        page.get_by_label("a", exact=True).fill("[1.5, 2]")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#try .error")).to_have_text("a: 1.5; expected UINT8")
        page.get_by_label("a", exact=True).fill("[1, 2]")
        page.get_by_label("b", exact=True).fill("[0.5, 0.25]")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".output", has_text="sum")).to_contain_text("1.5")
        page.get_by_label("b", exact=True).fill("[0.5]")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#try .error")).to_contain_text("expected")


@needs_browser
def test_with_tokens_nothing_is_shown_before_one_is_given(browser: Browser, guarded: Guarded) -> None:
    """The page loads and asks for it; a wrong one is said; a reload forgets it."""
    with page_of(browser, guarded, errors=("401",)) as page:
        expect(page.get_by_label("Token")).to_be_focused()
        expect(page.locator("#content")).to_be_hidden()
        assert "mnist" not in page.content()
        page.get_by_label("Token").fill("hg_wrong")
        page.get_by_role("button", name="Open").click()
        expect(page.locator("#sign-in-error")).to_have_text("This token is not known here.")
        page.get_by_label("Token").fill(guarded.user)
        page.get_by_role("button", name="Open").click()
        expect(page.locator("#title")).to_have_text("mnist")
        draw_seven(page)
        expect(page.locator("#answer")).to_have_text("7")
        assert page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)") == "{}{}"
        page.reload()
        expect(page.locator("#content")).to_be_hidden()


@needs_browser
def test_an_administrator_promotes_a_version(browser: Browser, guarded: Guarded) -> None:
    """What would change is said first; then the label has moved, for the page and for everybody."""
    with page_of(browser, guarded, errors=("401",)) as page:
        page.get_by_label("Token").fill(guarded.admin)
        page.get_by_role("button", name="Open").click()
        page.get_by_role("button", name="Promote mnist 1").click()
        expect(page.get_by_role("dialog")).to_contain_text("get version 1 instead of 2")
        page.get_by_role("button", name="Promote", exact=True).click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        row = page.locator(".versions > tbody > tr", has_text="mnist 1")
        expect(row.locator("[data-label='Answers to']")).to_contain_text("stable")
        expect(row.locator("[data-label='Answers to']")).to_contain_text("everyone")
    answer = json.loads(ask(guarded, "/v2/models/mnist", token=guarded.user)[2])
    assert "1" in answer["versions"]
    labels = {
        each["version"]: each["labels"] for each in json.loads(ask(guarded, "/models")[2]) if each["name"] == "mnist"
    }
    assert "stable" in labels[1]


@needs_browser
def test_somebody_elses_token_promotes_nothing(browser: Browser, guarded: Guarded) -> None:
    """The server's refusal is said where it was asked."""
    with page_of(browser, guarded, errors=("401", "403")) as page:
        page.get_by_label("Token").fill(guarded.user)
        page.get_by_role("button", name="Open").click()
        page.get_by_role("button", name="Unload several 2").click()
        page.get_by_role("button", name="Unload", exact=True).click()
        expect(page.get_by_role("dialog")).to_contain_text("expected one with admin in --tokens")


@needs_browser
def test_without_tensorflow_js_the_page_says_how_to_get_it(browser: Browser, server: ServerProcess) -> None:
    """It is asked for when somebody opens the panel, not before."""
    with page_of(browser, server, errors=("404",)) as page:
        page.route("**/console/tfjs.js", lambda route: route.fulfill(status=404, body=""))
        page.get_by_text("In your browser").click()
        expect(page.locator(".browser")).to_contain_text("build the wheel where npm is")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """TensorFlow.js as a wheel gets it."""
    spec = importlib.util.spec_from_file_location("bundle", ROOT / "server/tfjs/bundle.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        made: list[Path] = module.bundle(ROOT / "server/tfjs", tmp_path_factory.mktemp("bundle"))
    except subprocess.CalledProcessError as error:
        if any(code in error.stderr for code in NO_REGISTRY):
            pytest.skip(f"no npm registry can be reached: {error.stderr.splitlines()[0]}")
        raise
    return made


@pytest.mark.net
@needs_browser
def test_the_browser_agrees_with_the_server_and_the_reasons_lie_on_the_strokes(
    browser: Browser, bundle: list[Path], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server as a wheel has it: the model by TensorFlow.js under the page's policy, and what explains a seven."""
    package = tmp_path / "package/horngate_server"
    shutil.copytree(ROOT / "server/horngate_server", package)
    for file in bundle:
        shutil.copy(file, package / "transports/http/console")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]))
    with ServerProcess(trained.parents[1], tmp_path) as server, page_of(browser, server) as page:
        page.get_by_text("In your browser").click()
        expect(page.locator(".browser")).to_contain_text("Ready")
        draw_seven(page)
        expect(page.locator(".browser [role=status]")).to_contain_text("7, ")
        expect(page.locator(".browser [role=status]")).to_contain_text("agrees with the server")
        expect(page.locator(".why")).to_contain_text("all together off by")
        assert page.evaluate(SHARE_ON_STROKES) > 0.9


@needs_browser
def test_a_phone_shows_everything_without_scrolling_sideways(browser: Browser, server: ServerProcess) -> None:
    """At 400 px, with the load report and the code open."""
    with page_of(browser, server, width=400) as page:
        draw_seven(page)
        expect(page.locator("#answer")).to_have_text("7")
        page.get_by_text("The same call as code").click()
        page.get_by_text("Load report").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400


@needs_browser
def test_the_theme_is_the_machines_until_it_is_switched(browser: Browser, server: ServerProcess) -> None:
    """Dark by a button that says what it does, and still so when the page comes again."""
    with page_of(browser, server) as page:
        paper = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(paper)
        page.get_by_role("button", name="Theme: auto. Switch to dark").click()
        dark = page.evaluate(paper)
        page.reload()
        expect(page.get_by_role("button", name="Theme: dark. Switch to light")).to_be_visible()
        assert page.evaluate(paper) == dark != light


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Deque's checker of accessibility."""
    return (installed("axe", tmp_path_factory.mktemp("axe")) / "node_modules/axe-core/axe.min.js").read_text()


@needs_browser
@pytest.mark.net
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, server: ServerProcess, axe: str, theme: str) -> None:
    """On the page with everything on it that opens, in both themes."""
    with page_of(browser, server) as page:
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]  # one of its words
        draw_seven(page)
        expect(page.locator("#answer")).to_have_text("7")
        page.get_by_text("The same call as code").click()
        page.get_by_text("Load report").first.click()
        page.evaluate(axe)
        found = page.evaluate("axe.run().then(({ violations }) => violations)")
        serious = [each for each in found if each["impact"] in {"serious", "critical"}]
        assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in serious] == []
