"""The whole stack, seen to work: `python3 deploy/smoke.py`. Needs docker or podman-compose, and Python.

It brings up a stack of its own (another project name, the same ports), classifies the test set from a container, asks
Prometheus the dashboard's queries, kills a replica behind Envoy under load, restarts all of them one after the other
under load, gives the server TLS and tokens as docs/deploy.md says, and takes everything down again. Exit code 0 if all
of it held, 1 with the reason if not. HORNGATE_IMAGE_ENGINE=litert builds the servers without TensorFlow.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MNIST = ROOT / "trainer/horngate_trainer/data/mnist.npz"
DOORS = ROOT / "deploy/compose/doors.yaml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/horngate.json"
PROJECT = "horngate-smoke"
HTTP, PROMETHEUS, ENVOY = "http://localhost:8002", "http://localhost:9090", "http://localhost:9901"
REPLICAS = ("replica-1", "replica-2", "replica-3")
MAY_BE_EMPTY = {"Why", "Refused by reason"}
"""Panels about what went wrong: nothing has."""


class Failed(Exception):
    """Something is not as it should be."""


class Stack:
    """The compose project.

    Attributes:
        engine: what runs the containers.

    Args:
        command: ``docker compose`` or ``podman-compose``, in words.
        files: that say more than docker-compose.yml.
        variables: for these files.
    """

    def __init__(self, command: Sequence[str], *files: Path, **variables: str) -> None:
        self.engine = "podman" if "podman" in command[0] else "docker"
        self._command = ["env", *(f"{name}={value}" for name, value in variables.items()), *command, "-p", PROJECT]
        for file in (ROOT / "docker-compose.yml", *files):
            self._command += ["-f", str(file)]
        self._command += ["--profile", "scale", "--profile", "tools"]

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Run a compose command in the background."""
        pipe = subprocess.PIPE
        return subprocess.Popen([*self._command, *words], stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)

    def containers(self) -> list[str]:
        """Name those that run."""
        labels = [f"label={maker}.compose.project={PROJECT}" for maker in ("com.docker", "io.podman")]
        listed = [
            run(self.engine, "ps", "--format", "{{.Names}}", "--filter", label).stdout.split() for label in labels
        ]
        return sorted({name for names in listed for name in names})

    def __call__(self, *words: str, given: str = "") -> str:
        """Run a compose command with this on its standard input; return what it printed."""
        process = self.start(*words)
        out, err = process.communicate(given)
        if process.returncode:
            raise Failed(f"{' '.join(words)}: exit code {process.returncode}\n{out[-2000:]}\n{err[-4000:]}")
        return out

    def client(self, *words: str, mount: Path | None = None) -> "subprocess.Popen[str]":
        """Run the client's container in the background."""
        volumes = ["-v", f"{mount}:/data:ro"] if mount else []
        return self.start("run", "--rm", "-T", *volumes, "client", *words)


def get(url: str) -> tuple[int, str]:
    """Ask by HTTP; status 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def until(what: str, true: Callable[[], Any], at_most_s: float = 180.0) -> Any:
    """Look until it is so; return what made it so."""
    ends = time.monotonic() + at_most_s
    pause = threading.Event()
    while not (found := true()):
        if time.monotonic() > ends:
            raise Failed(f"not within {at_most_s:g} s: {what}")
        pause.wait(0.1)
    return found


def say(text: str) -> None:
    """Tell what held."""
    print(f"ok  {text}", flush=True)


def comes_up(stack: Stack, services: Sequence[str], build: Sequence[str]) -> None:
    """The server is live before there is a model, and ready once the trainer has published."""
    began = time.monotonic()
    stack("up", "-d", *build, *services)
    until("the server is live", lambda: get(f"{HTTP}/livez")[0] == 200)
    before = get(f"{HTTP}/readyz")[0]
    live_s = time.monotonic() - began
    until("the server is ready", lambda: get(f"{HTTP}/readyz")[0] == 200)
    say(
        f"up: live after {live_s:.0f} s ({'not yet ready' if before == 503 else 'and ready'}), "
        f"ready with the trainer's model after {time.monotonic() - began:.0f} s"
    )


def classifies(stack: Stack) -> None:
    """The client's container classifies a digit, and the test set as well as the trainer said."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with zipfile.ZipFile(MNIST) as data:
            data.extract("x_test.npy", folder)
            labels = data.read("y_test.npy")[-10_000:]
        digit = finished(stack.client("predict", "/digits/seven.png"))
        if not re.search(r"\b7\b", digit):
            raise Failed(f"a seven was not recognised: {digit}")
        predictions = json.loads(finished(stack.client("predict", "--json", "/data/x_test.npy", mount=Path(folder))))[
            "predictions"
        ]
    found = [each["class"] for each in predictions]
    right = sum(int(label) == truth for label, truth in zip(found, labels, strict=True))
    manifest = stack("exec", "-T", "server", "cat", "/models/mnist/1/assets.extra/horngate.json")
    expected = json.loads(manifest)["evaluation"]["correct"]
    if right != expected:
        raise Failed(f"{right} of 10,000 test images were recognised; the trainer found {expected}")
    say(f"client: a seven is a seven; {right:,} of the 10,000 test images recognised, as the trainer found")


def finished(process: "subprocess.Popen[str]") -> str:
    """Wait for a container; return what it printed."""
    out, err = process.communicate(timeout=300)
    if process.returncode:
        raise Failed(f"exit code {process.returncode}: {out[-2000:]}\n{err[-2000:]}")
    return out


def dashboard_answers() -> None:
    """Prometheus has an answer for every query of the dashboard."""
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    queries = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]

    def empty() -> list[str]:
        return [title for title, query in queries if title not in MAY_BE_EMPTY and not answer(query)]

    try:
        until("the dashboard's queries are answered", lambda: not empty(), 90)
    except Failed as error:
        raise Failed(f"{error}; empty: {', '.join(empty())}") from error
    say(f"prometheus: {len(queries)} queries of {len(panels)} panels answered")


def answer(query: str) -> list[Any]:
    """Ask Prometheus."""
    query = query.replace("$__rate_interval", "1m").replace("$model", ".*")
    status, text = get(f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    if status not in {0, 200, 503}:
        raise Failed(f"Prometheus answers {status} to {query}: {text}")
    return json.loads(text)["data"]["result"] if status == 200 else []


def healthy() -> int:
    """How many replicas Envoy sends requests to."""
    status, text = get(f"{ENVOY}/clusters?format=json")
    if status != 200:
        return 0
    clusters = {each["name"]: each for each in json.loads(text)["cluster_statuses"]}
    hosts = clusters["replicas"].get("host_statuses", [])
    return sum(host["health_status"] == {"eds_health_status": "HEALTHY"} for host in hosts)


def under_load(stack: Stack, what: str, seconds: int, meanwhile: Callable[[], None]) -> None:
    """Do something while requests, which nobody repeats, come through Envoy; none may fail."""
    client = stack.client(
        "--server", "envoy:8010", "load", "--concurrency", "32", "--duration", f"{seconds}s", "--warmup", "1s", "--json"
    )
    began = retries("rq_total")
    until("the load has begun", lambda: retries("rq_total") > began + 100)
    before = retries("rq_retry")
    meanwhile()
    if client.poll() is not None:
        raise Failed(f"{what}: took longer than the load of {seconds} s")
    report = json.loads(finished(client))
    if report["errors"]:
        raise Failed(f"{what}: {report['errors']} {report['error_messages']}")
    say(
        f"{what}: {report['requests']:,} requests in {report['seconds']:.0f} s, none failed "
        f"({retries('rq_retry') - before} tried again by Envoy, p99 {report['latency_ms']['p99']:.0f} ms)"
    )


def retries(name: str) -> int:
    """Read one of Envoy's counters for the replicas."""
    text = get(f"{ENVOY}/stats?filter=^cluster.replicas.upstream_{name}$")[1]
    return int(text.rpartition(":")[2] or 0)


def survives_a_kill(stack: Stack) -> None:
    """A replica that is killed loses nothing that Envoy can try again."""

    def kill() -> None:
        stack("kill", REPLICAS[0])
        until("Envoy has noticed", lambda: healthy() == 2, 30)

    under_load(stack, "a replica killed under load", 20, kill)
    stack("start", REPLICAS[0])
    until("the replica is back", lambda: healthy() == 3)


def restarts(stack: Stack) -> None:
    """Replicas restarted one after the other lose nothing."""

    def roll() -> None:
        for replica in REPLICAS:
            stack("stop", replica)
            until("Envoy has noticed", lambda: healthy() == 2, 60)
            stack("start", replica)
            until("the replica is back", lambda: healthy() == 3, 60)

    under_load(stack, "three replicas restarted under load", 120, roll)


def doors(command: Sequence[str]) -> None:
    """The commands of docs/deploy.md for TLS and tokens: who has none is refused, also once theirs was taken away."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        key, certificate = Path(folder, "key.pem"), Path(folder, "cert.pem")
        made = run(
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", "/CN=server",
            "-addext", "subjectAltName=DNS:server,DNS:localhost", "-keyout", str(key), "-out", str(certificate),
        )  # fmt: skip
        if made.returncode:
            raise Failed(f"openssl made no certificate: {made.stderr}")
        stack = Stack(command, DOORS, HORNGATE_CA=str(certificate))
        alone = ("run", "--rm", "--no-deps", "-T")
        for file in (key, certificate):
            stack(*alone, "--entrypoint", "tee", "tokens", f"/doors/{file.name}", given=file.read_text())
        alice = stack(*alone, "tokens", "alice").split()[-1]
        stack("up", "-d", "server")
        until("the server with doors is ready", lambda: get(f"{HTTP}/readyz")[0] == 200)
        bob = stack(*alone, "tokens", "bob").split()[-1]  # the server is there, and reads the file only
        until("bob's token is good", lambda: _predicts(command, certificate, bob), 30)
        if not _predicts(command, certificate, alice) or _predicts(command, certificate, ""):
            raise Failed("expected alice to be let in and nobody without a token")
        stack(*alone, "--entrypoint", "sed", "tokens", "-i", "/^alice /d", "/doors/tokens")
        until("alice's token is not good any more", lambda: not _predicts(command, certificate, alice), 30)
    say("doors: TLS, tokens added while it runs, one taken away, and nobody without")


def _predicts(command: Sequence[str], certificate: Path, token: str) -> bool:
    """Ask the server with doors; False where it says that the token is none."""
    process = Stack(command, DOORS, HORNGATE_CA=str(certificate), HORNGATE_TOKEN=token).client(
        "predict", "/digits/seven.png"
    )
    out, err = process.communicate(timeout=300)
    if process.returncode and not re.search("no token|the token is not known", out + err):
        raise Failed(f"exit code {process.returncode}, and no word of a token: {out[-2000:]}\n{err[-2000:]}")
    return process.returncode == 0


def no_root(stack: Stack) -> None:
    """Nobody is root in any container."""
    for service in ("server", "prometheus", "envoy"):
        if (who := stack("exec", "-T", service, "id", "-u").strip().splitlines()[-1]) == "0":
            raise Failed(f"{service} runs as root ({who})")
    say("no container runs as root")


def all_healthy(stack: Stack) -> None:
    """Every container that has a healthcheck passes it."""
    if not (names := stack.containers()):
        raise Failed("no container of this project is to be seen")

    def failing() -> list[str]:
        return [name for name in names if not passes(stack.engine, name)]

    try:
        until("all healthchecks pass", lambda: not failing(), 120)
    except Failed as error:
        raise Failed(f"{error}; failing: {', '.join(failing())}") from error
    say(f"every healthcheck of {len(names)} containers passes")


def passes(engine: str, container: str) -> bool:
    """Ask how a container is; podman runs its check here and now, since without systemd nobody else does."""
    state = run(engine, "inspect", "--format", "{{json .State}}", container)
    health = json.loads(state.stdout or "{}").get("Health") or {}
    if not health:
        return True
    if engine == "podman":
        return run(engine, "healthcheck", "run", container).returncode == 0
    return bool(health["Status"] == "healthy")


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command; whoever asks looks how it went."""
    return subprocess.run(words, capture_output=True, text=True, check=False)


def compose() -> list[str]:
    """Find the compose command that works here."""
    for command in (["docker", "compose"], ["podman-compose"]):
        if shutil.which(command[0]) and run(*command, "version").returncode == 0:
            return command
    raise Failed("neither `docker compose` nor `podman-compose` works here")


def main() -> int:
    """Run it all; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compose", metavar="COMMAND", help="default: docker compose, else podman-compose")
    parser.add_argument("--no-build", action="store_true", help="take the images as they are")
    parser.add_argument("--no-grafana", action="store_true", help="where its image cannot be had")
    parser.add_argument("--keep", action="store_true", help="leave the stack up")
    asked = parser.parse_args()
    stack: Stack | None = None
    try:
        command = asked.compose.split() if asked.compose else compose()
        stack = Stack(command)
        stack("down", "-v")
        services = ["trainer", "server", "prometheus", *([] if asked.no_grafana else ["grafana"])]
        comes_up(stack, services, ["--no-build" if asked.no_build else "--build"])
        classifies(stack)
        stack("up", "-d", *REPLICAS, "envoy")
        until("three replicas are healthy", lambda: healthy() == 3)
        say("scale: three replicas behind Envoy")
        no_root(stack)
        all_healthy(stack)
        under_load(stack, "the dashboard asked under load", 40, dashboard_answers)
        survives_a_kill(stack)
        restarts(stack)
        doors(command)
    except Failed as error:
        print(f"FAILED  {error}", file=sys.stderr)
        if stack is not None:
            print(stack.start("logs", "--tail", "20").communicate()[0][-4000:], file=sys.stderr)
        return 1
    finally:
        if stack is not None and not asked.keep:
            stack.start("down", "-v").communicate()
    print("the stack works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
