"""The server's settings: flags and HORNGATE_ variables, read once into one frozen object. Nothing else reads either."""

import argparse
import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from horngate_protos import __version__
from horngate_protos.stores import StoreUrl
from horngate_server.core import machine, parsing
from horngate_server.core.errors import SettingsError

PREFIX = "HORNGATE_"
AUTO = "auto"
TENSORFLOW, LITERT = "tensorflow", "litert"
ENGINES = (AUTO, TENSORFLOW, LITERT)
"""What an operator may say of what computes a model."""
BATCHING = ("rows", "whole", AUTO)
"""What an operator may say of how requests are batched."""
LENGTHS = ("padded", "apart", AUTO)
"""What an operator may say of how requests of different lengths are computed."""
MEMORY_SHARE = 0.2
MOST_MEMORY_BYTES = 1 << 30
"""Of `default_model_memory`."""


def _option(
    default: Any,
    help: str,  # noqa: A002 - as argparse calls it
    parse: Callable[[str], Any] = str,
    metavar: str = "",
    *,
    stem: str = "",
    separator: str = os.pathsep,
    made: Callable[[], Any] | None = None,
    positional: bool = False,
) -> Any:
    """Describe a setting.

    Args:
        default: its value where nothing is said; where it must be found out, ``made`` does that.
        help: for ``--help``.
        parse: reads a flag or a variable; a ValueError says what was expected.
        metavar: stands for the value in ``--help``.
        stem: the flag's name, where it is not the attribute's.
        separator: stands between several values in the variable.
        made: makes the default.
        positional: it has no flag; any number of values stand by themselves.
    """
    about = {
        "help": help, "parse": parse, "metavar": metavar, "stem": stem, "separator": separator, "positional": positional
    }  # fmt: skip
    return field(default=default, metadata=about) if made is None else field(default_factory=made, metadata=about)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one version of a model may take.

    Attributes:
        max_batch_rows: rows that are computed together at most.
        queue_rows: rows that may wait.
        max_queue_delay_s: seconds that the first of a batch is kept waiting for more.
        target_batch_s: seconds that a batch takes at most, as far as that was measured while loading.
        model_memory_bytes: bytes that one run may need, its inputs and outputs included.
        queue_bytes: bytes of requests that may wait.
        batching: whether requests share runs: "rows", "whole" (one request, one run), or "auto", which finds out.
        lengths: whether requests of different lengths share runs: "padded", "apart", or "auto", which finds out.
        tags: of the MetaGraph that is loaded; empty for TensorFlow's usual one.
        signature: the one that answers callers who name none; empty for the usual one.
        engine: what computes it: "tensorflow", "litert", or "auto", which chooses.
        shadow_engine: the other engine, which computes along; empty for none.
    """

    max_batch_rows: int
    queue_rows: int
    max_queue_delay_s: float
    target_batch_s: float = 0.05
    model_memory_bytes: int = 1 << 30
    queue_bytes: int = 1 << 30
    batching: str = AUTO
    lengths: str = AUTO
    tags: tuple[str, ...] = ()
    signature: str = ""
    engine: str = AUTO
    shadow_engine: str = ""


def default_model_memory() -> int:
    """Return `MEMORY_SHARE` of the memory that this process may use, in bytes, and at most `MOST_MEMORY_BYTES`."""
    return min(MOST_MEMORY_BYTES, int(machine.memory_bytes() * MEMORY_SHARE))


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files for TLS.

    Attributes:
        certificate: the server's, with its chain.
        key: the certificate's.
        client_ca: the authorities whose clients may come (mutual TLS); None lets everyone in.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker process is told about itself.

    Attributes:
        number: 0, 1, ...
        line: the number of the inherited socket that ends when the supervisor does, and that tells it when we serve.
        http: where to serve /metrics and /readyz to the supervisor.
    """

    number: int
    line: int
    http: Path

    def __str__(self) -> str:
        return f"{self.number}:{self.line}:{self.http}"

    @classmethod
    def parse(cls, text: str) -> "Worker":
        """Read what ``str`` wrote."""
        number, line, http = text.split(":", 2)
        return cls(int(number), int(line), Path(http))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that an operator can set. The help texts are those of ``--help``."""

    model: tuple[Path, ...] = _option(
        (),
        "what to serve, as it stands: a SavedModel's folder, a .tflite file, a model's folder with versions in it "
        "(1/, 2/: TensorFlow Serving's base path, KServe's storage), or a folder of models; several: name them all, "
        "or separate them with a colon in the variable",
        parsing.named_models, "MODEL", positional=True,
    )  # fmt: skip
    models: Path | StoreUrl = _option(
        Path("models"),
        "folder with the models: DIR/<name>/<integer version>/ with saved_model.pb, model.tflite or both; or a folder "
        "of an object store, s3://bucket/prefix or gs://bucket/prefix (pip install 'horngate[remote]'); where no MODEL "
        "is named",
        parsing.model_root, "DIR|URL",
    )  # fmt: skip
    name: tuple[str, ...] = _option(
        (),
        "what callers call the model (default: its folder's or file's name); with several MODELs, give it again for "
        "each, in their order",
        parsing.model_names, "NAME", separator=",",
    )  # fmt: skip
    model_cache: Path = _option(
        Path("model-cache"), "where versions of an object store are fetched to; served without it, too",
        parsing.path, "DIR",
    )  # fmt: skip
    model_cache_bytes: int = _option(
        10 << 30,
        "what they may take there, such as 800MB or 20GiB; old ones leave, never what serves",
        parsing.disk, "SIZE",
    )  # fmt: skip
    host: str = _option("127.0.0.1", "address to listen on; 0.0.0.0 for everyone", metavar="ADDRESS")
    grpc_port: int = _option(8001, "port for gRPC; 0 picks a free one", parsing.whole(0, 65535), "PORT")
    http_port: int = _option(
        8002, "port for HTTP: probes, metrics, the console, REST; 0 picks a free one", parsing.whole(0, 65535), "PORT"
    )
    rest_port: int | None = _option(
        None,
        "another port for the same as --http-port, where REST callers expect one: 8501 is TensorFlow Serving's "
        "(off by default); 0 picks a free one",
        parsing.whole(0, 65535), "PORT",
    )  # fmt: skip
    grpc_web_port: int | None = _option(
        None,
        "port for gRPC-Web, by which pages in browsers call (fast transport; off by default); 0 picks a free one",
        parsing.whole(0, 65535), "PORT",
    )  # fmt: skip
    grpc_web_origins: tuple[str, ...] = _option(
        (),
        "the origins whose pages may call --grpc-web-port, such as https://app.example; several: separate them with "
        "commas, or give it again (default: none)",
        parsing.origins, "ORIGIN", separator=",",
    )  # fmt: skip
    device: str = _option(
        "auto",
        "auto uses a GPU when there is one; gpu refuses to start without one",
        parsing.one_of("auto", "cpu", "gpu"), "auto|cpu|gpu",
    )  # fmt: skip
    engine: str = _option(
        AUTO,
        "what computes: tensorflow runs saved_model.pb, litert runs model.tflite, on the CPU and without TensorFlow; "
        "auto takes, for a version that has both, LiteRT where recorded answers prove it and it is no slower",
        parsing.one_of(*ENGINES), "|".join(ENGINES),
    )  # fmt: skip
    transport: str = _option(
        "auto",
        "which gRPC server runs: fast is Envoy with Python inside (pip install 'horngate[fast]'), grpcio runs "
        "everywhere; auto is fast where it can run",
        parsing.one_of("auto", "fast", "grpcio"),
        "auto|fast|grpcio",
    )
    max_batch_rows: int = _option(1024, "rows that are computed together at most", parsing.whole(1, 1 << 20), "ROWS")
    queue_rows: int = _option(
        16384,
        "rows that may wait per model; more are refused with RESOURCE_EXHAUSTED",
        parsing.whole(1, 1 << 30),
        "ROWS",
    )
    max_queue_delay_s: float = _option(
        0.0,
        "how long an idle server waits to fill a batch (250us, 5ms); 0ms, right for nearly everyone, never waits",
        parsing.seconds, "TIME",
    )  # fmt: skip
    target_batch_time_s: float = _option(
        0.05,
        "the longest that a batch may take to compute (5ms, 1s): while a model loads, it is tried with more and more "
        "rows at once, up to --max-batch-rows, and the first size that takes longer is not used. Longer batches may "
        "compute more rows a second; every caller waits for the whole batch",
        parsing.batch_time, "TIME",
    )  # fmt: skip
    model_memory_bytes: int = _option(
        0,
        "memory that one batch of a model may need, its inputs, outputs and what lies between: 800MB, 2GiB, or a share "
        "of the machine's or the container's memory, 25%. Larger batches are not tried, and larger requests are "
        "refused (default: 20% of the memory, at most 1GiB)",
        parsing.memory, "SIZE|SHARE%", stem="model-memory", made=default_model_memory,
    )  # fmt: skip
    op_library: tuple[Path, ...] = _option(
        (),
        "a library of operations that models need and TensorFlow does not have, built for this TensorFlow; several: "
        "give it again, or separate them with a colon in the variable",
        parsing.files, "FILE.so",
    )  # fmt: skip
    grace_period_s: float = _option(
        30.0, "how long SIGTERM waits for accepted requests; a second signal ends at once", parsing.seconds, "TIME"
    )
    compute_threads: int = _option(
        0,
        "threads that one operation of a model may use, one batch at a time; 0 finds out while loading: every core, "
        "all but the one that serves, or a batch on each",
        parsing.whole(0, 1024),
        "N",
    )
    max_message_bytes: int = _option(64 << 20, "largest gRPC message that is accepted", parsing.size, "SIZE")
    workers: int = _option(
        1,
        "processes on the one port, each with its own models; for machines with more cores than one can use",
        parsing.whole(1, 256), "N",
    )  # fmt: skip
    worker_timeout_s: float = _option(
        10.0,
        "a worker that gives no sign of life for this long is killed and replaced: new connections would wait for it; "
        "0 never",
        parsing.patience, "TIME",
    )  # fmt: skip
    tls_cert: Path | None = _option(None, "certificate chain (PEM): speak TLS", parsing.path, "FILE")
    tls_key: Path | None = _option(None, "the certificate's key (PEM)", parsing.path, "FILE")
    tls_client_ca: Path | None = _option(
        None, "let in only clients with a certificate of these authorities (PEM): mutual TLS", parsing.path, "FILE"
    )
    max_request_bytes: int = _option(
        1 << 30,
        "bytes of requests in memory at once, being received or waiting; more are refused with RESOURCE_EXHAUSTED",
        parsing.requests_size, "SIZE",
    )  # fmt: skip
    tokens: Path | None = _option(
        None,
        "let in only calls with one of the tokens in this file (`horngate-server token` adds one); read again when it "
        "changes",
        parsing.path, "FILE",
    )  # fmt: skip
    max_client_requests: int = _option(
        0,
        "requests of one client at once, by its token or else its address; 0 for any number",
        parsing.whole(0, 1 << 30), "N",
    )  # fmt: skip
    max_client_bytes: int = _option(
        0, "bytes of one client's requests at once; 0 for any number", parsing.requests_size_or_0, "SIZE"
    )
    max_connections: int = _option(1000, "connections at once; further ones are closed", parsing.whole(1, 1 << 20), "N")
    max_connection_age_s: float = _option(
        300.0,
        "how long a connection lives, give or take 10%, until its caller is told to open another one (GOAWAY); calls "
        "under way are answered. Load balancers and DNS choose a server when a connection is opened: new replicas get "
        "no calls before old connections end. 0 for ever",
        parsing.age, "TIME",
    )  # fmt: skip
    verify: str = _option(
        "strict",
        "what a model that disagrees with its recorded answers gets: strict refuses it, warn serves it, off never asks",
        parsing.one_of("strict", "warn", "off"), "strict|warn|off",
    )  # fmt: skip
    config: Path | None = _option(
        None, "per model: versions, labels, shadow, limits (TOML); read again when it changes", parsing.path, "FILE"
    )
    watch_interval_s: float = _option(
        1.0,
        "how often the model root is looked at, where the file system does not tell of changes; an object store, once "
        "in ten times as long",
        parsing.period, "TIME",
    )  # fmt: skip
    admin: bool = _option(
        False,
        "answer Triton's RepositoryModelLoad and RepositoryModelUnload and TensorFlow Serving's "
        "HandleReloadConfigRequest: callers, or those with an admin token, can then change what is served",
        parsing.switch,
    )
    write_config: bool = _option(
        False,
        "let promotions write labels into --config FILE, where they outlast the server; without it they are forgotten "
        "when it ends, and a label that the file has is changed there alone",
        parsing.switch,
    )
    reflection: str = _option(
        "on", "whether callers may ask which methods and messages there are", parsing.one_of("on", "off"), "on|off"
    )
    console: str = _option(
        "on",
        "whether the HTTP port shows a page at / to try and to watch the models with",
        parsing.one_of("on", "off"), "on|off",
    )  # fmt: skip
    port_file: Path | None = _option(
        None,
        "write the ports here, a line each (grpc PORT, http PORT, rest PORT), once all listen",
        parsing.path,
        "FILE",
    )
    worker: Worker | None = _option(None, argparse.SUPPRESS, Worker.parse)
    scratch: Path | None = _option(None, argparse.SUPPRESS, parsing.path)
    access_log: float = _option(
        0.0, "the share of requests that get a log line, 0 to 1: 0.01 is one in a hundred", parsing.share, "SHARE"
    )
    otlp_endpoint: str | None = _option(
        None,
        "send traces there, by OTLP over gRPC (http://collector:4317); callers decide by their traceparent "
        "(pip install 'horngate[otel]')",
        parsing.url, "URL",
    )  # fmt: skip
    trace_share: float = _option(
        0.01, "the share of requests without a traceparent that begin a trace, 0 to 1", parsing.share, "SHARE"
    )
    record: Path | None = _option(
        None,
        "record requests and their answers below DIR, in files that `horngate-client replay` sends again; never tokens "
        "or metadata (off by default)",
        parsing.path, "DIR",
    )  # fmt: skip
    record_share: float = _option(0.01, "the share of requests that are recorded, 0 to 1", parsing.share, "SHARE")
    record_bytes: int = _option(
        1 << 30, "what the recorded files may take together; the oldest leave", parsing.disk, "SIZE"
    )
    record_age_s: float = _option(
        7 * 86400.0, "how long a record is kept at most, such as 12h or 30d", parsing.retention, "TIME"
    )
    log_format: str = _option("text", "how log lines look", parsing.one_of("text", "json"), "text|json")
    log_level: str = _option(
        "info", "the least urgent lines that are logged", parsing.one_of("debug", "info", "warning", "error"),
        "debug|info|warning|error",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.name and len(self.name) != (len(self.model) or 1):
            raise SettingsError(f"{len(self.name)} --name for {len(self.model) or 1} MODEL; expected one for each")
        if self.queue_rows < self.max_batch_rows:
            raise SettingsError(
                f"--queue-rows {self.queue_rows}: expected at least --max-batch-rows, {self.max_batch_rows}"
            )
        if (self.tls_cert is None) != (self.tls_key is None) or (self.tls_client_ca and not self.tls_cert):
            raise SettingsError("--tls-cert and --tls-key come together, and --tls-client-ca needs both")
        for path in (self.tls_cert, self.tls_key, self.tls_client_ca):
            if path is not None and not path.is_file():
                raise SettingsError(f"--tls-cert, --tls-key, --tls-client-ca: no file {path}")
        for path in self.op_library:
            if not path.is_file():
                raise SettingsError(f"--op-library {path}: no such file; expected a shared library (.so)")
        self._check_admin()
        self._check_grpc_web()

    def _check_admin(self) -> None:
        if self.admin and not self.tokens and not self.is_local:
            raise SettingsError(f"--admin with --host {self.host} needs --tokens FILE, with a token for administrators")
        if self.admin and self.workers > 1:
            raise SettingsError("--admin reaches one process: with --workers, change what is served in --config FILE")
        if self.write_config and not (self.config and self.admin):
            raise SettingsError("--write-config needs --admin, by which callers promote, and --config FILE to write")

    def _check_grpc_web(self) -> None:
        if self.grpc_web_origins and self.grpc_web_port is None:
            raise SettingsError("--grpc-web-origins says whose pages may call --grpc-web-port, which is not given")
        if self.grpc_web_port is not None and self.transport == "grpcio":
            raise SettingsError("--grpc-web-port needs --transport fast: grpcio does not speak gRPC-Web")

    @property
    def model_root(self) -> Path:
        """The folder with the models: of an object store, the one that they are fetched into."""
        if isinstance(self.models, StoreUrl):
            return self.model_cache / self.models.folder_name
        return self.models

    @property
    def is_local(self) -> bool:
        """Whether only this machine's callers can come."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def shown_host(self) -> str:
        """The host as addresses with a port have it."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def local_host(self) -> str:
        """The host to ask from this machine, as addresses with a port have it."""
        return "localhost" if self.host in {"0.0.0.0", "::"} else self.shown_host  # noqa: S104 - to recognise it

    @property
    def limits(self) -> Limits:
        """What every version of every model may take, where ``--config`` says nothing else."""
        return Limits(
            max_batch_rows=self.max_batch_rows,
            queue_rows=self.queue_rows,
            max_queue_delay_s=self.max_queue_delay_s,
            target_batch_s=self.target_batch_time_s,
            model_memory_bytes=self.model_memory_bytes,
            queue_bytes=self.max_request_bytes,
            engine=self.engine,
        )

    @property
    def tls(self) -> Tls | None:
        """The files for TLS; None where it is not asked for."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return Tls(self.tls_cert, self.tls_key, self.tls_client_ca)


_STEMS = {each.name: each.metadata["stem"] for each in fields(Settings)}
_SEPARATORS: dict[str, str] = {each.name: each.metadata["separator"] for each in fields(Settings)}


def read(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Parse flags over HORNGATE_ variables over defaults. ``--help`` prints and exits 0.

    Args:
        arguments: the command line without the program's name.
        environment: for tests; the process's own by default.

    Raises:
        SettingsError: the offending flag or variable, what was expected, what came.
    """
    return chosen(vars(_parser().parse_intermixed_args(arguments)), environment)


def add_flags(parser: argparse.ArgumentParser, *attributes: str) -> None:
    """Let another command take the flags of some settings too; `chosen` reads them."""
    for each in fields(Settings):
        if each.name in attributes:
            _add_flag(parser, each)


def chosen(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Return parsed flags over HORNGATE_ variables over defaults.

    Args:
        given: by attribute, the text after the flag; what is no setting is left alone.
        environment: for tests; the process's own by default.

    Raises:
        SettingsError: the offending flag or variable, what was expected, what came.
    """
    environment = os.environ if environment is None else environment
    found = {}
    if given.get("model") and given.get("models"):
        raise SettingsError("either MODEL or --models: both say what is served")
    one, root = names("model")[1], names("models")[1]  # what says what is served; a flag wins, else MODEL does
    unsaid = one if given.get("models") else root if given.get("model") or one in environment else ""
    environment = {name: text for name, text in environment.items() if name != unsaid}
    for each in fields(Settings):
        flag, variable = names(each.name)
        if each.metadata["positional"]:
            flag = each.metadata["metavar"]
        if given.get(each.name) not in (None, []):
            text = given[each.name]
            source, text = flag, each.metadata["separator"].join(text) if isinstance(text, list) else text
        elif variable in environment:
            source, text = variable, environment[variable]
        else:
            continue
        try:
            found[each.name] = each.metadata["parse"](text)
        except ValueError as error:
            raise SettingsError(f"{source} {text!r}: {error}") from error
    return Settings(**found)


def names(attribute: str) -> tuple[str, str]:
    """Return the flag and the variable of a setting; units of time are in the attribute's name only."""
    stem = _STEMS.get(attribute) or attribute.removesuffix("_s").replace("_", "-")
    return f"--{stem}", PREFIX + stem.replace("-", "_").upper()


def environment(settings: Settings) -> dict[str, str]:
    """Return the process's environment with these settings as variables: what a process started from it reads."""
    variables = {}
    for each in fields(Settings):
        value = getattr(settings, each.name)
        if value is not None and value != ():
            variables[names(each.name)[1]] = _written(each.name, value)
    return {**os.environ, **variables}


def prepare_libraries(settings: Settings) -> None:
    """Set what TensorFlow's C library reads from the environment; before it is loaded."""
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "1" if settings.device != "cpu" and machine.has_nvidia_driver() else "2"
    )
    os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")  # each model's threads are its own, as many as it needs
    if settings.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


GROUPS = (
    (
        "models",
        "What is served. New versions are served as they appear, once they have proved themselves.",
        (
            "model", "models", "name", "config", "verify", "watch_interval_s", "op_library", "model_cache",
            "model_cache_bytes",
        ),
    ),
    (
        "network",
        "Where callers come in: gRPC on one port; metrics, probes, JSON and the console on the other.",
        (
            "host", "grpc_port", "http_port", "rest_port", "port_file", "transport", "grpc_web_port",
            "grpc_web_origins", "max_connections", "max_connection_age_s", "console", "reflection",
        ),
    ),
    (
        "security",
        "Who may call, and what one client may take. By default only this machine can reach the server.",
        (
            "tls_cert", "tls_key", "tls_client_ca", "tokens", "max_client_requests", "max_client_bytes",
            "max_message_bytes", "max_request_bytes",
        ),
    ),
    (
        "batching",
        "Requests that come while the model computes form the next batch. How large it may be is found out at load.",
        ("max_batch_rows", "target_batch_time_s", "model_memory_bytes", "max_queue_delay_s", "queue_rows"),
    ),
    ("computing", "What computes, and with how much of the machine.",
        ("device", "engine", "compute_threads", "workers", "worker_timeout_s")),
    ("lifecycle", "Who may change what is served, and how the server ends.",
        ("admin", "write_config", "grace_period_s")),
    (
        "telemetry",
        "What is told of requests, beside the metrics on the HTTP port.",
        ("log_format", "log_level", "access_log", "otlp_endpoint", "trace_share"),
    ),
    (
        "recording",
        "What is kept of requests and their answers, to send them again: tensors, and when they came.",
        ("record", "record_share", "record_bytes", "record_age_s"),
    ),
)  # fmt: skip
"""The flags as ``--help`` has them: title, what they are about, attributes."""


# --- private ------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise SettingsError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="horngate-server",
        usage="%(prog)s [MODEL ...] [--flag VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        description=(
            "Serve Keras and TensorFlow SavedModels over gRPC, with batching and Prometheus metrics.\n"
            "Speaks the Open Inference Protocol v2, so Triton's and KServe's clients can call it."
        ),
        epilog=(
            "commands:\n"
            "  horngate-server inspect DIR [--json]   load a version, verify and measure it; serve nothing\n"
            "  horngate-server token NAME --file FILE [--admin]   make a token, and let it in by --tokens FILE\n"
            "  horngate-server health [--server localhost:8001] [--model NAME]   exit 0 if it serves, 1 if not\n\n"
            "examples:\n"
            "  horngate-server wine                      a SavedModel's folder, or a model's with 1/, 2/ in it\n"
            "  horngate-server cat.tflite --name cats    callers ask for cats\n"
            "  horngate-server --models models           every models/<name>/<version>/, new ones as they come\n"
            "  horngate-server --models /srv/models --host 0.0.0.0 --device gpu\n"
            "  HORNGATE_LOG_FORMAT=json horngate-server --queue-rows 65536\n\n"
            "Every flag has a variable: --grpc-port is HORNGATE_GRPC_PORT. A flag wins over its variable.\n"
            "Signals: TERM, INT, QUIT drain, a second one ends at once; HUP looks at models and --config now;\n"
            "USR1 logs what every thread is doing.\n"
            "Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage."
        ),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    known = {each.name: each for each in fields(Settings)}
    for title, about, members in GROUPS:
        group = parser.add_argument_group(title, about)
        for name in members:
            _add_flag(group, known.pop(name))
    for each in known.values():
        _add_flag(parser, each)
    return parser


def _add_flag(parser: argparse._ActionsContainer, setting: Field[Any]) -> None:
    flag, _ = names(setting.name)
    text = setting.metadata["help"]
    if setting.metadata["positional"]:
        parser.add_argument(setting.name, nargs="*", metavar=setting.metadata["metavar"], help=text)
        return
    if setting.default is False:
        parser.add_argument(flag, dest=setting.name, action="store_const", const="true", help=text.replace("%", "%%"))
        return
    if text != argparse.SUPPRESS:
        if setting.default not in (None, MISSING, ()):
            text += f" (default: {_shown(setting.name, setting.default)})"
        text = text.replace("%", "%%")
    action = "append" if setting.default == () else "store"
    parser.add_argument(flag, dest=setting.name, action=action, metavar=setting.metadata["metavar"], help=text)


def _written(attribute: str, value: object) -> str:
    """Write a value as its variable has it."""
    if isinstance(value, tuple):
        return _SEPARATORS[attribute].join(map(str, value))
    if attribute.endswith("_s"):
        return f"{value:.9f}".rstrip("0").rstrip(".") + "s"
    return str(value)


_DAY_S = 86400.0


def _shown(attribute: str, value: object) -> str:
    """Show a default as it would be typed."""
    if attribute.endswith("_s") and isinstance(value, float):
        if value >= _DAY_S:
            return f"{value / _DAY_S:g}d"
        return f"{value:g}s" if value >= 1 else f"{value * 1000:g}ms"
    if attribute.endswith("_bytes") and isinstance(value, int):
        return f"{value >> 20}MiB" if value else "0"
    return str(value)
