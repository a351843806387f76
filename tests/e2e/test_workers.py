"""Several worker processes behind one port."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from horngate_client import Client
from horngate_server.transports.access.tokens import add
from support.in_process import request
from support.process import ServerProcess, children, usage_error
from support.waiting import until

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
WAIT_S = 30.0
BODY = json.dumps(
    {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}]}
).encode()


def samples(server: ServerProcess, name: str) -> dict[str, float]:
    """One metric's values per worker."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def ask(server: ServerProcess, connections: int) -> int:
    """Send one image over each of several new connections, so that the kernel can share them out."""
    body = request({"images": np.zeros((1, 28, 28), np.uint8)}, model="mnist").SerializeToString()
    for number in range(connections):
        options = [("grpc.use_local_subchannel_pool", 1), ("test.number", number)]
        with grpc.insecure_channel(server.grpc, options=options) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
            infer(body, timeout=WAIT_S, wait_for_ready=True)
    return connections


def test_workers_share_one_port_one_page_of_metrics_and_one_end(trained: Path, transport: str, tmp_path: Path) -> None:
    """Every connection is answered by one of them, each is counted once, and SIGTERM ends all with exit code 0."""
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport, "--workers", "2") as server:
        assert "serves with 2 workers" in "\n".join(server.log)
        sent = ask(server, 24)
        counts = samples(server, "horngate_requests_total")
        assert sum(counts.values()) == sent
        assert samples(server, "horngate_worker_up") == {"0": 1, "1": 1}
        with Client(server.grpc) as client:
            assert len(client.predict(np.zeros((2000, 28, 28), np.uint8)).classes) == 2000
        with urllib.request.urlopen(f"{server.http}/readyz", timeout=10) as response:
            assert response.status == 200
        for path, body in (("/v2/models/mnist", None), ("/v2/models/mnist/infer", BODY), ("/v2/nope", None)):
            codes = set()
            for _ in range(4):  # the workers answer in turn
                try:
                    with urllib.request.urlopen(f"{server.http}{path}", body, timeout=10) as response:
                        codes.add(response.status)
                        answer = json.load(response)
                except urllib.error.HTTPError as error:
                    codes.add(error.code)
                    answer = json.load(error)
                    error.close()
            assert codes == ({404} if path == "/v2/nope" else {200}), answer
        assert server.stop() == 0
        assert sum("every accepted request was answered" in line for line in server.log) == 2


def test_a_crashed_worker_is_replaced_and_counted(trained: Path, transport: str, tmp_path: Path) -> None:
    """Kill -9 on a worker: the others go on answering, a new one takes its place, and the log and a counter say so."""
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport, "--workers", "2") as server:
        before = children(server.process.pid)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        server.wait_for("crashed: killed by SIGKILL")
        until(lambda: ask(server, 4) == 4 and both_serve(server))  # no caller comes to the new one while it loads
        assert replaced(server) == {"crashed": 1, "hung": 0, "not_started": 0}
        assert len(set(children(server.process.pid)) - set(before)) == 1
        assert server.stop() == 0


def test_a_worker_that_hangs_holds_up_nobody_elses_probe(trained: Path, transport: str, tmp_path: Path) -> None:
    """Liveness is answered meanwhile, metrics come without it, and JSON goes to the others."""
    flags = ("--transport", transport, "--workers", "2", "--worker-timeout", "0")
    with ServerProcess(trained.parents[1], tmp_path, *flags) as server:
        hung = children(server.process.pid)[0]
        os.kill(hung, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(4) as threads:
                scrapes = [threads.submit(samples, server, "horngate_worker_up") for _ in range(4)]
                for _ in range(20):
                    with urllib.request.urlopen(f"{server.http}/livez", timeout=1.5) as response:
                        assert response.status == 200
                for scrape in scrapes:
                    assert sorted(scrape.result().values()) == [0, 1]
            with ThreadPoolExecutor(2) as threads:
                in_turn = [threads.submit(post, server) for _ in range(2)]  # one of them gets the hung worker
                stuck = wait(in_turn, 3.0).not_done
                assert len(stuck) == 1
                assert [post(server) for _ in range(20)] == [200] * 20
                os.kill(hung, signal.SIGCONT)
                assert [each.result() for each in in_turn] == [200] * 2
        finally:
            os.kill(hung, signal.SIGCONT)
        assert server.stop() == 0


def test_a_worker_that_hangs_is_replaced_and_counted(trained: Path, transport: str, tmp_path: Path) -> None:
    """It gives no sign of life: it is killed, another takes its place, and every new connection is answered again."""
    flags = ("--transport", transport, "--workers", "2", "--worker-timeout", "2s")
    with ServerProcess(trained.parents[1], tmp_path, *flags) as server:
        before = children(server.process.pid)
        os.kill(before[0], signal.SIGSTOP)
        server.wait_for("gives no sign of life, and is killed")
        until(lambda: ask(server, 4) == 4 and both_serve(server))
        assert len(set(children(server.process.pid)) - set(before)) == 1
        assert replaced(server) == {"hung": 1, "crashed": 0, "not_started": 0}
        ask(server, 8)
        assert server.stop() == 0


@pytest.mark.alone
def test_the_end_does_not_wait_for_a_worker_that_hangs(trained: Path, transport: str, tmp_path: Path) -> None:
    """Two seconds after the grace period all is over, nobody is left behind, and the exit code tells."""
    flags = ("--transport", transport, "--workers", "2", "--worker-timeout", "0", "--grace-period", "1s")
    with ServerProcess(trained.parents[1], tmp_path, *flags) as server:
        workers = children(server.process.pid)
        os.kill(workers[0], signal.SIGSTOP)
        began = time.monotonic()
        assert server.stop() == 1
        assert time.monotonic() - began < 3.0
        assert not any(Path(f"/proc/{number}").exists() for number in workers)


def test_a_second_signal_leaves_no_worker_behind(trained: Path, transport: str, tmp_path: Path) -> None:
    """Also one that hangs is gone when the supervisor is."""
    flags = ("--transport", transport, "--workers", "2", "--worker-timeout", "0")
    with ServerProcess(trained.parents[1], tmp_path, *flags) as server:
        workers = children(server.process.pid)
        os.kill(workers[0], signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("SIGTERM: draining")
        assert server.stop() == 128 + signal.SIGTERM
        until(lambda: not any(alive(number) for number in workers))


def test_a_signal_that_goes_to_all_processes_is_one_signal(trained: Path, transport: str, tmp_path: Path) -> None:
    """As a terminal's Ctrl-C and systemd's stop do: every worker drains, and none takes it for the second one."""
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport, "--workers", "2") as server:
        for number in (server.process.pid, *children(server.process.pid)):
            os.kill(number, signal.SIGTERM)
        assert server.process.wait(WAIT_S) == 0
    assert sum("every accepted request was answered" in line for line in server.log) == 2


@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_that_are_no_end_end_nothing(trained: Path, transport: str, tmp_path: Path, workers: str) -> None:
    """SIGHUP looks at the disk now, SIGUSR1 says where threads are, others are named; SIGQUIT drains."""
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport, "--workers", workers) as server:
        for number, said in (
            (signal.SIGHUP, "SIGHUP: looking at the disk now"),
            (signal.SIGUSR1, "thread signals"),
            (signal.SIGUSR2, "SIGUSR2: means nothing here"),
            (signal.SIGALRM, "SIGALRM: means nothing here"),
        ):
            server.process.send_signal(number)
            server.wait_for(said)
        assert ask(server, 2) == 2
        assert server.stop(signal.SIGQUIT) == 0


def test_a_worker_that_cannot_be_started_is_tried_again(trained: Path, transport: str, tmp_path: Path) -> None:
    """For as long as it takes: the others serve, and once nothing is in its way, so does it."""
    models, away = tmp_path / "models", tmp_path / "away"
    shutil.copytree(trained.parents[1], models)
    with ServerProcess(models, tmp_path, "--transport", transport, "--workers", "2") as server:
        models.rename(away)
        os.kill(children(server.process.pid)[0], signal.SIGKILL)
        until(lambda: replaced(server)["not_started"] > 1)
        assert ask(server, 4) == 4
        away.rename(models)
        until(lambda: both_serve(server))
        assert server.stop() == 0


def both_serve(server: ServerProcess) -> bool:
    """Whether two workers have loaded their model."""
    return samples(server, "horngate_model_load_seconds").keys() == {"0", "1"}


def alive(number: int) -> bool:
    """Whether a process is there, and has not only left its number behind."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def replaced(server: ServerProcess) -> dict[str, float]:
    """How often workers were replaced, by reason."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as response:
        families = text_string_to_metric_families(response.read().decode())
    found: dict[str, float] = {}
    for sample in next(family for family in families if family.name == "horngate_worker_restarts").samples:
        found[sample.labels["reason"]] = found.get(sample.labels["reason"], 0) + sample.value
    return found


def test_the_supervisor_asks_for_tokens_before_it_takes_a_body(trained: Path, transport: str, tmp_path: Path) -> None:
    """A body that has not come yet is refused by its head, whatever host it is for; refusals are on the page."""
    tokens = tmp_path / "tokens"
    token = add(tokens, "alice", admin=False)
    flags = ["--transport", transport, "--workers", "2", "--tokens", str(tokens)]
    with ServerProcess(trained.parents[1], tmp_path, *flags) as server:
        host, port = server.http.removeprefix("http://").split(":")
        for name in ("x", "x/v2/health/live?", "x/grpc.health.v1.Health/Check?"):
            with socket.create_connection((host, int(port)), timeout=20) as caller:
                caller.sendall(f"POST /v2/models/mnist/infer HTTP/1.1\r\nhost: {name}\r\n".encode())
                caller.sendall(b"content-length: 100000\r\n\r\n{")
                assert caller.recv(4096).split()[1] == b"401"
        assert post(server, token) == 200
        with urllib.request.urlopen(f"{server.http}/v2/health/ready", timeout=20) as response:
            assert response.status == 200
        assert samples(server, "horngate_refused_total")["supervisor"] == 3
        assert server.stop() == 0


def post(server: ServerProcess, token: str = "") -> int:
    """Send an image as JSON; return the status."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    asked = urllib.request.Request(f"{server.http}/v2/models/mnist/infer", BODY, headers)
    with urllib.request.urlopen(asked, timeout=WAIT_S) as response:
        return int(response.status)


def test_no_worker_outlives_its_supervisor(trained: Path, transport: str, tmp_path: Path) -> None:
    """Kill -9 on the process that an operator started leaves nothing behind on the port."""
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport, "--workers", "2") as server:
        workers = children(server.process.pid)
        server.process.kill()
        until(lambda: not any(Path(f"/proc/{number}").exists() for number in workers))


def test_workers_that_cannot_start_end_the_server_with_their_reason(tmp_path: Path, transport: str) -> None:
    """What only they find out is said by the workers, and not tried again for ever."""
    (tmp_path / "ops.so").touch()
    done = subprocess.run(
        [
            sys.executable, "-m", "horngate_server", "--models", ".", "--op-library", "ops.so", "--workers", "2",
            "--grpc-port", "0", "--http-port", "0", "--transport", transport,
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--op-library ops.so cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("count", ["0", "257"])
def test_a_number_of_workers_that_makes_no_sense_is_wrong_usage(count: str, tmp_path: Path) -> None:
    """Between 1 and 256."""
    assert f"--workers '{count}': expected a whole number from 1 to 256" in usage_error(tmp_path, "--workers", count)
