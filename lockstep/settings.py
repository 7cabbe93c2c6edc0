"""Every endpoint and limit, typed, from one TOML file and the environment."""

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from lockstep.clock import Clock
from lockstep.errors import BadInput

_PORTS = 65_535
_TOKEN = re.compile(r"\s*((Bearer|Basic) +)?[!-~]*\s*")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]")


class Settings(BaseSettings):
    """Where things are and how far they may go; each field is also the environment variable `LOCKSTEP_<FIELD>`.

    A duration is a number of seconds in the file, and as ISO 8601 has it, say PT0.1S, in both.

    The file is `$LOCKSTEP_SETTINGS`, or `$LOCKSTEP_HOME/lockstep.toml` where it exists; the environment wins. Everything that
    is not given lives below `home`, which is the embedded profile.

    Attributes:
        redis_mode: what the online store is: one server, a primary that Sentinels name, or a Redis Cluster.
        redis_host: the one server's.
        redis_port: the one server's.
        redis_nodes: `host:port` of the Sentinels, or of some nodes of the cluster, which name the others; a list in the file,
            separated by commas in the environment.
        redis_sentinel_service: by which name the Sentinels know the primary.
        redis_username: for the online store; the Sentinels themselves are asked without a user.
        redis_password: the same; never shown.
        redis_tls: speak TLS, also to the Sentinels.
        redis_tls_ca: the file with the authorities that may have signed the servers' certificates; the system's if not given.
        redis_tls_certificate: the file with our own certificate, for servers that want one.
        redis_tls_key: the file with its key.
        argo_server: URL of Argo's server, as in https://argo.example.com; who only runs things here needs none.
        argo_token: a bearer token for it; never shown, and not handed on to other processes.
        argo_namespace: where the cluster's WorkflowTemplates are.
        argo_tls_ca: the file with the authorities that may have signed its certificate; those that `requests` trusts if not
            given.
        argo_tls_skip_verify: take any certificate, so anybody for Argo's server.
        request_budget: how long a request may take that does not ask for more or less (`x-lockstep-budget-ms`).
        replay_budget: what a shadow replay asks for, for each of its requests.
        circuit_failures: so many failures one after the other, of the store or the predictor, and it is not asked for a moment.
        circuit_pause: how long that is; then one request tries.
        request_time_limit: how far a request's time, or a view's watermark, may be from our clock.
        served_log_rate: the share of live requests whose rows are logged, whatever became of them; flagged rows always are.
        served_log_url: a Redis of its own for the served log's stream, as in rediss://user:password@host:port/0; the online
            store if not given. Never shown.
        parity_signing_key: the private key that signs parity reports, in PEM; for whoever verifies parity alone.
        parity_verify_key: the public key that the gate verifies them with. Without either, both are below `home`/keys.
        promotion_approval: whether somebody has to approve each promotion, whatever its run was asked for.
        snapshots_keep: how long a snapshot is kept that nothing else keeps (`retention.py`); at least `parity_max_age`.
        report_url: where a run that failed is reported to, as JSON with a `text`; never shown: with chat services it is a secret.
        corrections_keep: how long computed ticks may be corrected: so long their sources' snapshots are kept.
    """

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_", extra="forbid", frozen=True)

    home: Path = Path(".lockstep")
    use_case: str = "feature_repo"
    catalog_uri: str = ""
    warehouse: str = ""
    ledger_url: str = ""
    registry_url: str = ""
    tracking_url: str = ""
    redis_host: str = "127.0.0.1"
    redis_port: int = Field(default=6379, gt=0, le=_PORTS)
    redis_mode: Literal["standalone", "sentinel", "cluster"] = "standalone"
    redis_nodes: Annotated[tuple[str, ...], NoDecode] = ()
    redis_sentinel_service: str = ""
    redis_username: str = ""
    redis_password: SecretStr = SecretStr("")
    redis_tls: bool = False
    redis_tls_ca: FilePath | None = None
    redis_tls_certificate: FilePath | None = None
    redis_tls_key: FilePath | None = None
    argo_server: str = ""
    argo_token: SecretStr = SecretStr("")
    argo_namespace: str = Field(default="features", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    argo_tls_ca: FilePath | None = None
    argo_tls_skip_verify: bool = False
    clock_file: Path | None = None
    shadow_url: str = ""
    request_budget: timedelta = Field(default=timedelta(milliseconds=100), gt=timedelta(0), le=timedelta(seconds=20))
    replay_budget: timedelta = Field(default=timedelta(seconds=5), gt=timedelta(0), le=timedelta(seconds=20))
    circuit_failures: int = Field(default=5, gt=0)
    circuit_pause: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0))
    request_time_limit: timedelta = timedelta(minutes=5)
    served_log_rate: float = Field(default=1.0, ge=0, le=1)
    served_log_url: SecretStr = SecretStr("")
    duckdb_memory_limit: str = "1500MB"
    retrieval_rows: int = Field(default=1_000_000, gt=0)
    materialize_memory_limit: str = "300MB"
    materialize_values: int = Field(default=8_000_000, gt=0)
    parity_limit: float = Field(default=0.01, gt=0, lt=1)
    parity_confidence: float = Field(default=0.95, gt=0, lt=1)
    parity_max_age: timedelta = timedelta(hours=24)
    parity_signing_key: Path | None = None
    parity_verify_key: Path | None = None
    promotion_approval: Literal["none", "required"] = "none"
    snapshots_keep: timedelta = timedelta(days=7)
    corrections_keep: timedelta = timedelta(days=30)
    report_url: SecretStr = SecretStr("")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the TOML file below the environment; no .env file is looked for."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, settings_file())

    @field_validator("redis_nodes", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        """Split what the environment holds; a file holds a list."""
        return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _require_one_meaning(self) -> Self:
        """Refuse settings of the online store that contradict each other, before anything is asked.

        Raises:
            BadInput: they do.
        """
        for wrong, message, setting in _contradictions(self):
            if wrong:
                raise BadInput(f"settings: {message}", hint=f"see to {setting}")
        return self

    @classmethod
    def load(cls) -> "Settings":
        """Read the settings file and the environment.

        Raises:
            BadInput: a value is of the wrong kind, a key of the file is unknown, or two settings contradict each other.
        """
        try:
            settings = cls()
        except ValidationError as invalid:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in invalid.errors())
            raise BadInput(
                f"settings: {problems}", hint=f"read from {settings_file()} and LOCKSTEP_* variables"
            ) from None
        return settings.resolved()

    def resolved(self) -> "Settings":
        """Return a copy in which everything not given lives below `home`."""
        home = self.home.resolve()
        return self.model_copy(
            update={
                "home": home,
                "catalog_uri": self.catalog_uri or f"sqlite:///{home}/catalog.db",
                "warehouse": self.warehouse or f"file://{home}/warehouse",
                "ledger_url": self.ledger_url or f"sqlite:///{home}/ledger.db",
                "registry_url": self.registry_url or f"sqlite:///{home}/registry.db",
                "tracking_url": self.tracking_url or f"sqlite:///{home}/mlflow.db",
            }
        )

    @property
    def clock(self) -> Clock:
        """The clock that every part of this process reads."""
        return Clock(self.clock_file)

    def environment(self) -> dict[str, str]:
        """Return the `LOCKSTEP_*` variables that give another process these very settings, the secrets among them.

        Only the token for Argo's server stays here: no process of ours but the command asks that.
        """
        secrets = {name: value.get_secret_value() for name, value in self if isinstance(value, SecretStr)}
        nodes = {"redis_nodes": ",".join(self.redis_nodes)}
        values = self.model_dump(mode="json", exclude_none=True) | nodes | secrets
        del values["argo_token"]
        return {f"LOCKSTEP_{name.upper()}": str(value) for name, value in values.items()}


def _contradictions(given: Settings) -> Iterator[tuple[object, str, str]]:
    """Yield what may not be, whether it is so, and which setting to look at."""
    mode, password = given.redis_mode, given.redis_password.get_secret_value()
    several, sentinel = mode in {"sentinel", "cluster"}, mode == "sentinel"
    log = given.served_log_url.get_secret_value()
    yield log and not _host(log, "redis", "rediss"), "served_log_url is no redis:// or rediss:// URL", "served_log_url"
    files = given.redis_tls_ca or given.redis_tls_certificate or given.redis_tls_key
    for node in given.redis_nodes:
        yield not all(address_of(node)), f"{node!r} is no host:port", "redis_nodes, as in 10.0.0.7:6379"
    one = Settings.model_fields["redis_host"].default, Settings.model_fields["redis_port"].default
    yield (
        several and (given.redis_host, given.redis_port) != one,
        f"redis_mode is {mode}, whose nodes are redis_nodes",
        "redis_host and redis_port: they are given, too",
    )
    yield several and not given.redis_nodes, f"redis_mode is {mode} and names no node", "redis_nodes"
    yield given.redis_nodes and not several, f"there are redis_nodes and redis_mode is {mode}", "redis_mode"
    yield (
        sentinel and not given.redis_sentinel_service,
        "redis_mode is sentinel",
        "redis_sentinel_service: it is empty",
    )
    yield given.redis_sentinel_service and not sentinel, f"redis_mode is {mode}", "redis_sentinel_service: it is given"
    yield given.redis_username and not password, "redis_username has no password", "redis_password"
    yield given.redis_tls_certificate and not given.redis_tls_key, "a certificate needs its key", "redis_tls_key"
    yield given.redis_tls_key and not given.redis_tls_certificate, "a key has no certificate", "redis_tls_certificate"
    yield files and not given.redis_tls, "there are files for TLS, which is not spoken", "redis_tls"
    yield from _contradictions_of_argo(given)


def _contradictions_of_argo(given: Settings) -> Iterator[tuple[object, str, str]]:
    server, token = given.argo_server, given.argo_token.get_secret_value()
    host = _argo_host(server)
    clear = server.startswith("http://")
    yield server and not host, "argo_server is no URL of a server", "argo_server, as in https://argo.example.com"
    yield not _TOKEN.fullmatch(token), "argo_token is no token: it has blanks or line breaks in it", "argo_token"
    yield (
        clear and token and not is_loopback(host),
        "argo_token would go to argo_server in the clear",
        "argo_server: give an https URL, or forward a port of this machine to it",
    )
    yield clear and given.argo_tls_ca, "argo_server is an http URL: there is no certificate to verify", "argo_tls_ca"
    yield given.argo_tls_skip_verify and given.argo_tls_ca, "argo_tls_skip_verify verifies nothing", "argo_tls_ca"


def _argo_host(server: str) -> str:
    """Return the host of a URL that names a server and at most a path; "" if it is anything else."""
    # A password in the URL would be shown with it.
    return "" if set(server) & set("@?#{}\\") else _host(server, "http", "https")


def _host(url: str, *schemes: str) -> str:
    """Return the host of a URL of one of these schemes; "" if it is anything else."""
    try:
        parts = urlsplit(url)
        usable = parts.port != 0 and url.startswith(tuple(f"{scheme}://" for scheme in schemes))
    except ValueError:
        return ""
    return (parts.hostname or "") if usable and url.isprintable() and " " not in url else ""


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, as its name or address alone tells."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(node: str) -> tuple[str, int]:
    """Return host and port of `host:port`, or of `[address]:port`; "" and 0 where there is none."""
    host, _, port = node.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= len(str(_PORTS)) else 0
    named = _HOST.fullmatch(host)
    return host.strip("[]") if named else "", number if number <= _PORTS else 0


def settings_file() -> Path:
    """Return the path of the settings file, whether it exists or not."""
    home = Path(os.environ.get("LOCKSTEP_HOME", ".lockstep"))
    return Path(os.environ.get("LOCKSTEP_SETTINGS", home / "lockstep.toml"))
