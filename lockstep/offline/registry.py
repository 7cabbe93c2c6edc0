"""Feast's registry of one project: open it by settings, bring the definitions into it."""

import json
import warnings

import feast
from feast.repo_config import RepoConfig

from lockstep.contract import ENTITY_KEY_VERSION
from lockstep.offline.feast_store import LockstepDuckDBOfflineStoreConfig
from lockstep.settings import Settings
from lockstep.views.feast import objects
from lockstep.views.use_case import UseCase


def feature_store(settings: Settings, use_case: UseCase) -> feast.FeatureStore:
    """Open the project's feature store: the SQL registry, the lake and Redis, where the settings say they are.

    Nothing is read from a `feature_store.yaml`.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    config = RepoConfig.model_validate(
        {
            "project": use_case.project,
            "provider": "local",
            "registry": {"registry_type": "sql", "path": settings.registry_url},
            "offline_store": LockstepDuckDBOfflineStoreConfig.of(settings).model_dump(),
            "online_store": online_store(settings),
            "entity_key_serialization_version": ENTITY_KEY_VERSION,
            # Feast would take a time without a zone for UTC; our store refuses it.
            "coerce_tz_aware": False,
        }
    )
    return feast.FeatureStore(config=config)


def online_store(settings: Settings) -> dict[str, str]:
    """Return the online store as Feast's own Redis store is told of it, the password included."""
    options = {
        "username": settings.redis_username,
        "password": settings.redis_password.get_secret_value(),
        "ssl_ca_certs": settings.redis_tls_ca,
        "ssl_certfile": settings.redis_tls_certificate,
        "ssl_keyfile": settings.redis_tls_key,
    }
    nodes = settings.redis_nodes or (f"{settings.redis_host}:{settings.redis_port}",)
    parts = [*nodes, *(f"{name}={_quoted(str(value))}" for name, value in options.items() if value)]
    if settings.redis_tls:
        parts.append("ssl=true")
    kind = {"standalone": "redis", "sentinel": "redis_sentinel", "cluster": "redis_cluster"}[settings.redis_mode]
    told = {"type": "redis", "redis_type": kind, "connection_string": ",".join(parts)}
    return told | ({"sentinel_master": settings.redis_sentinel_service} if kind == "redis_sentinel" else {})


def _quoted(text: str) -> str:
    """Write a text as JSON without a comma: Feast ends a value there, and reads as JSON what can be, as a password of digits."""
    return json.dumps(text).replace(",", "\\u002c")


def apply_definitions(settings: Settings, use_case: UseCase) -> list[str]:
    """Bring a use case's definitions into the registry and return their names; what it no longer declares stays there."""
    applied = objects(use_case)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "On demand feature view is an experimental feature", RuntimeWarning)
        feature_store(settings, use_case).apply(applied)
    return [thing.name for thing in applied]
