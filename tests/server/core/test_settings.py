"""Flags and variables."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from horngate_protos.stores import StoreUrl
from horngate_server.core import machine, settings
from horngate_server.core.errors import SettingsError


def test_defaults_are_the_contract() -> None:
    """Without flags and variables, the documented defaults hold."""
    chosen = settings.read([], {})
    assert chosen == settings.Settings()
    assert (chosen.models, chosen.host, chosen.grpc_port, chosen.http_port) == (Path("models"), "127.0.0.1", 8001, 8002)
    assert (chosen.max_batch_rows, chosen.queue_rows, chosen.max_queue_delay_s) == (1024, 16384, 0.0)
    assert (chosen.device, chosen.transport, chosen.grace_period_s, chosen.verify) == ("auto", "auto", 30.0, "strict")


def test_a_flag_wins_over_its_variable() -> None:
    """HORNGATE_ variables are defaults that a command line overrides."""
    environment = {"HORNGATE_GRPC_PORT": "7001", "HORNGATE_MAX_QUEUE_DELAY": "250us"}
    assert settings.read([], environment).grpc_port == 7001
    assert settings.read(["--grpc-port", "7002"], environment).grpc_port == 7002
    assert settings.read([], environment).max_queue_delay_s == pytest.approx(0.00025)


def test_every_flag_is_in_one_group_of_the_help() -> None:
    """Whoever looks for a flag knows where to look."""
    grouped = [name for _, _, members in settings.GROUPS for name in members]
    internal = {"worker", "scratch"}
    assert sorted(grouped) == sorted(each.name for each in fields(settings.Settings) if each.name not in internal)


def test_models_are_named_by_themselves_or_by_their_root() -> None:
    """Flags may stand between MODELs; what the command line says of one of both wins over the other's variable."""
    named = settings.read(["wine", "--name", "a", "cat.tflite", "--name", "b,c", "m"], {"HORNGATE_MODELS": "r"})
    assert named.model == (Path("wine"), Path("cat.tflite"), Path("m"))
    assert named.name == ("a", "b", "c")
    assert settings.read([], settings.environment(named)) == named
    assert not settings.read(["--models", "r"], {"HORNGATE_MODEL": "wine"}).model


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--grpc-port", "70000"], {}, "--grpc-port '70000': expected a whole number from 0 to 65535"),
        ([], {"HORNGATE_GRPC_PORT": "x"}, "HORNGATE_GRPC_PORT 'x': expected a whole number"),
        (["--device", "tpu"], {}, "--device 'tpu': expected one of auto, cpu, gpu"),
        (["--max-queue-delay", "5"], {}, "--max-queue-delay '5': expected a duration such as"),
        (["--worker-timeout", "1s"], {}, "--worker-timeout '1s': expected a duration of at least 2s, or 0"),
        (["--target-batch-time", "2m"], {}, "--target-batch-time '2m': expected a duration from 1ms to 60s"),
        (["--model-memory", "101%"], {}, "--model-memory '101%': expected at least 1MiB, such as 800MB"),
        (["--record-age", "10"], {}, "--record-age '10': expected a duration from 1m to 3650d"),
        (["--model-memory", "80"], {}, "--model-memory '80': expected at least 1MiB, such as 800MB"),
        (["--op-library", "/no/ops.so"], {}, "--op-library /no/ops.so: no such file"),
        ([], {"HORNGATE_OP_LIBRARY": ""}, "HORNGATE_OP_LIBRARY '': expected a path"),
        (["--max-message-bytes", "3TiB"], {}, "--max-message-bytes '3TiB': expected a size"),
        (["--max-connection-age", "1d"], {}, "--max-connection-age '1d': expected a duration such as"),
        (["--max-connection-age", "9ms"], {}, "--max-connection-age '9ms': expected a duration from 1s to 1440m, or 0"),
        (["--queue-rows", "10"], {}, "--queue-rows 10: expected at least --max-batch-rows, 1024"),
        (["--models", ""], {}, "--models '': expected a path"),
        (["wine", "--models", "x"], {}, "either MODEL or --models: both say what is served"),
        (["--name", "a/b"], {}, "--name 'a/b': expected a name"),
        (["--modles", "x"], {}, "unrecognized arguments: --modles; see horngate-server --help"),
        (["--max-batch-rows", "-1"], {}, "max-batch-rows"),
        (["--grpc-web-port", "0", "--grpc-web-origins", "*"], {}, "--grpc-web-origins '*': expected origins such as"),
        (["--grpc-web-port", "0", "--grpc-web-origins", "https://a.example/page"], {}, "expected origins such as"),
        (["--grpc-web-origins", "https://a.example"], {}, "may call --grpc-web-port, which is not given"),
        (["--grpc-web-port", "0", "--transport", "grpcio"], {}, "--grpc-web-port needs --transport fast: grpcio"),
    ],
)
def test_wrong_settings_name_the_offender(arguments: list[str], environment: dict[str, str], said: str) -> None:
    """The message names the flag or the variable, what was expected and what came."""
    with pytest.raises(SettingsError) as refused:
        settings.read(arguments, environment)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"), [("800MB", 800_000_000), ("2GiB", 2 << 30), ("25%", 2 << 30), ("12.5%", 1 << 30)]
)
def test_the_memory_of_a_model_is_bytes_or_a_share(monkeypatch: pytest.MonkeyPatch, text: str, expected: int) -> None:
    """A share is one of what the machine or the container has."""
    monkeypatch.setattr(machine, "memory_bytes", lambda: 8 << 30)
    assert settings.read(["--model-memory", text], {}).model_memory_bytes == expected


@pytest.mark.parametrize(("there_is", "expected"), [(1 << 30, (1 << 30) // 5), (64 << 30, 1 << 30)])
def test_a_model_has_a_fifth_of_the_memory_and_a_gibibyte_at_most(
    monkeypatch: pytest.MonkeyPatch, there_is: int, expected: int
) -> None:
    """The default fits the machine or the container."""
    monkeypatch.setattr(machine, "memory_bytes", lambda: there_is)
    assert settings.read([], {}).limits.model_memory_bytes == expected


@pytest.mark.parametrize(("text", "expected"), [("0", 0.0), ("0s", 0.0), ("1s", 1.0), ("10m", 600.0)])
def test_connections_live_for_a_while_or_for_ever(text: str, expected: float) -> None:
    """The default is five minutes; 0 is for ever; what a child process reads is the same."""
    chosen = settings.read(["--max-connection-age", text], {})
    assert chosen.max_connection_age_s == expected
    assert settings.read([], settings.environment(chosen)).max_connection_age_s == expected
    assert settings.read([], {}).max_connection_age_s == 300


@pytest.mark.parametrize(("text", "expected"), [("60s", 60.0), ("12h", 43_200.0), ("7d", 604_800.0)])
def test_records_are_kept_for_a_while(text: str, expected: float) -> None:
    """Days are what people say; what a child process reads is the same."""
    chosen = settings.read(["--record-age", text], {})
    assert chosen.record_age_s == expected
    assert settings.read([], settings.environment(chosen)).record_age_s == expected


def test_every_version_has_the_limits_that_the_flags_say() -> None:
    """What waits is bounded by the bytes of all requests."""
    chosen = settings.read(["--target-batch-time", "20ms", "--model-memory", "1GiB", "--max-request-bytes", "1MiB"], {})
    limits = chosen.limits
    assert (limits.target_batch_s, limits.model_memory_bytes, limits.queue_bytes) == (0.02, 1 << 30, 1 << 20)
    assert (limits.batching, limits.tags, limits.signature) == ("auto", (), "")


def test_settings_survive_the_way_into_another_process(tmp_path: Path) -> None:
    """What a process hands to one that it starts is read as the same, libraries and fractions included."""
    libraries = [tmp_path / "a.so", tmp_path / "b.so"]
    for each in libraries:
        each.touch()
    flags = [word for each in libraries for word in ("--op-library", str(each))]
    chosen = replace(settings.read(flags, {}), target_batch_time_s=0.0025, model_memory_bytes=123_456_789)
    assert chosen.op_library == tuple(libraries)
    assert settings.read([], settings.environment(chosen)) == chosen


def test_help_teaches_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """--help lists each setting, examples, variables and exit codes, and exits 0."""
    with pytest.raises(SystemExit) as left:
        settings.read(["--help"], {})
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name in set(settings.Settings.__slots__) - {"worker", "scratch"}:  # our own processes tell each other
        assert settings.names(name)[0] in shown
    for text in ("(default: 16384)", "(default: 64MiB)", "(default: 30s)", "examples:", "Exit codes", "HORNGATE_"):
        assert text in shown


@pytest.mark.parametrize(
    ("host", "asked", "is_local"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("localhost", "localhost", True),
        ("::1", "[::1]", True),
        ("0.0.0.0", "localhost", False),
        ("::", "localhost", False),
        ("10.1.2.3", "10.1.2.3", False),
    ],
)
def test_where_a_server_is_asked_from_its_own_machine(host: str, asked: str, is_local: bool) -> None:
    """`horngate-server health` asks where the server listens; what is not loopback can be reached by others."""
    chosen = settings.Settings(host=host)
    assert (chosen.local_host, chosen.is_local) == (asked, is_local)


def test_origins_are_as_browsers_write_them_and_reach_the_process_that_needs_them() -> None:
    """In small letters, without the port that everyone knows; a variable says them as the flag does."""
    given = ["--grpc-web-port", "0", "--grpc-web-origins", "https://A.example:443,http://localhost:5173"]
    chosen = settings.read([*given, "--grpc-web-origins", "https://[::1]:8443"], {})
    assert chosen.grpc_web_origins == ("https://a.example", "http://localhost:5173", "https://[::1]:8443")
    assert settings.read([], settings.environment(chosen)) == chosen


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("models", Path("models")),
        ("s3:/odd/folder", Path("s3:/odd/folder")),
        ("s3://bucket", StoreUrl("s3", "bucket")),
        ("gs://my.bucket-1/team/models/", StoreUrl("gs", "my.bucket-1", "team/models")),
    ],
)
def test_models_are_in_a_folder_or_in_a_store(given: str, meant: Path | StoreUrl) -> None:
    """A store's are fetched into a folder of their own in the cache; a process that is started has the same ones."""
    chosen = settings.read(["--models", given, "--model-cache", "cache", "--model-cache-bytes", "3GiB"], {})
    assert chosen.models == meant
    assert chosen.model_cache_bytes == 3 << 30
    assert settings.read([], settings.environment(chosen)) == chosen
    if isinstance(meant, Path):
        assert chosen.model_root == meant
    else:
        assert chosen.model_root.parent == Path("cache")
        assert chosen.model_root.name.startswith(f"{meant.scheme}-{meant.bucket}-")


@pytest.mark.parametrize("given", ["s3://key:secret@bucket/x", "http://secret", "s3://bucket/a?X-Amz-Signature=secret"])
def test_an_address_that_may_hold_a_secret_is_not_repeated(given: str) -> None:
    """The usage says what is expected instead, and where credentials come from."""
    with pytest.raises(SettingsError, match=r"--models: expected a folder, s3://bucket/prefix or .* AWS_\*") as refused:
        settings.read(["--models", given], {})
    assert "secret" not in str(refused.value)
