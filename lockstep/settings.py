"""Every endpoint and limit, typed, from one TOML file and the environment."""

import os
from datetime import timedelta
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from lockstep.clock import Clock
from lockstep.errors import BadInput


class Settings(BaseSettings):
    """Where things are and how far they may go; each field is also the environment variable `LOCKSTEP_<FIELD>`.

    The file is `$LOCKSTEP_SETTINGS`, or `$LOCKSTEP_HOME/lockstep.toml` where it exists; the environment wins. Everything that
    is not given lives below `home`, which is the embedded profile.
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
    redis_port: int = 6379
    clock_file: Path | None = None
    shadow_url: str = ""
    read_deadline: timedelta = timedelta(milliseconds=250)
    predictor_deadline: timedelta = timedelta(seconds=5)
    request_time_limit: timedelta = timedelta(minutes=5)
    duckdb_memory_limit: str = "1500MB"
    retrieval_rows: int = Field(default=1_000_000, gt=0)
    materialize_rows: int = Field(default=2_000_000, gt=0)
    parity_limit: float = Field(default=0.01, gt=0, lt=1)
    parity_confidence: float = Field(default=0.95, gt=0, lt=1)
    parity_max_age: timedelta = timedelta(hours=24)

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

    @classmethod
    def load(cls) -> "Settings":
        """Read the settings file and the environment.

        Raises:
            BadInput: a value is of the wrong kind, or a key of the file is unknown.
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
        """Return the `LOCKSTEP_*` variables that give another process these very settings."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {f"LOCKSTEP_{name.upper()}": str(value) for name, value in values.items()}


def settings_file() -> Path:
    """Return the path of the settings file, whether it exists or not."""
    home = Path(os.environ.get("LOCKSTEP_HOME", ".lockstep"))
    return Path(os.environ.get("LOCKSTEP_SETTINGS", home / "lockstep.toml"))
