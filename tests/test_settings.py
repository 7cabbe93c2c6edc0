"""The online store's settings: from the file, the environment and another process; and what contradicts itself."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from lockstep.errors import BadInput
from lockstep.local.redis import LocalRedis
from lockstep.online.store import connect_log
from lockstep.settings import Settings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lockstep.toml"
    monkeypatch.setenv("LOCKSTEP_SETTINGS", str(path))
    return path


def test_the_file_names_the_nodes_and_the_environment_wins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('redis_mode = "cluster"\nredis_nodes = ["a:1", "[::1]:2"]\nredis_password = "hidden"\n')
    assert Settings.load().redis_nodes == ("a:1", "[::1]:2")
    monkeypatch.setenv("LOCKSTEP_REDIS_NODES", "c:3, d:4")
    assert Settings.load().redis_nodes == ("c:3", "d:4")


def test_another_process_gets_the_same_settings(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ca", "crt", "key"):
        (tmp_path / name).touch()
    given = Settings(
        redis_mode="sentinel",
        redis_nodes=("a:1", "b:2"),
        redis_sentinel_service="online",
        redis_username="lockstep",
        redis_password=SecretStr("a, b"),
        redis_tls=True,
        redis_tls_ca=tmp_path / "ca",
        redis_tls_certificate=tmp_path / "crt",
        redis_tls_key=tmp_path / "key",
    ).resolved()
    for name, value in given.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == given


def test_a_password_is_not_shown(file: Path) -> None:
    file.write_text('redis_password = "hidden"\n')
    settings = Settings.load()
    assert "hidden" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    assert settings.redis_password.get_secret_value() == "hidden"


def test_a_server_of_our_own_is_reached_without_what_the_settings_say_of_another(tmp_path: Path) -> None:
    given = Settings(redis_mode="cluster", redis_nodes=("a:1",), redis_password=SecretStr("x"), redis_tls=True)
    with LocalRedis(tmp_path) as server:
        there = server.settings(given)
        assert (there.redis_mode, there.redis_nodes, there.redis_tls) == ("standalone", (), False)
        assert (there.redis_port, there.redis_password.get_secret_value()) == (server.port, "")


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"redis_mode": "cluster"}, "redis_nodes"),
        ({"redis_mode": "sentinel", "redis_sentinel_service": "x"}, "redis_nodes"),
        ({"redis_mode": "sentinel", "redis_nodes": ("a:1",)}, "redis_sentinel_service"),
        ({"redis_mode": "cluster", "redis_nodes": ("a:1",), "redis_sentinel_service": "x"}, "redis_sentinel_service"),
        ({"redis_nodes": ("a:1",)}, "redis_mode"),
        ({"redis_mode": "cluster", "redis_nodes": ("a",)}, "redis_nodes"),
        *(
            ({"redis_mode": "cluster", "redis_nodes": (node,)}, "redis_nodes")
            for node in (
                "a:b",
                ":1",
                "a:0",
                "a:65536",
                "a:" + "9" * 5_000,
                "redis://a:1",
                "user@a:1",
                "::1:6379",
                "a b:1",
            )
        ),
        ({"redis_mode": "cluster", "redis_nodes": ("a:1",), "redis_port": 7}, "redis_host"),
        ({"redis_mode": "sentinel", "redis_nodes": ("a:1",), "redis_host": "b"}, "redis_host"),
        ({"redis_username": "x"}, "redis_password"),
        ({"redis_tls": True, "redis_tls_certificate": __file__}, "redis_tls_key"),
        ({"redis_tls": True, "redis_tls_key": __file__}, "redis_tls_certificate"),
        ({"redis_tls_ca": __file__}, "redis_tls"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any], setting: str) -> None:
    with pytest.raises(BadInput) as refused:
        Settings(**given)
    assert setting in refused.value.hint.split()[2]


@pytest.mark.parametrize(
    "server", ["https://argo.example.com", "http://127.0.0.1:2746", "http://[::1]:2746/argo/", "http://localhost:2746"]
)
def test_a_token_goes_over_tls_or_to_this_machine(server: str) -> None:
    assert Settings(argo_server=server, argo_token=SecretStr("x")).argo_server == server


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        *(
            ({"argo_server": server}, "argo_server,")
            for server in (
                "argo:2746",
                "argo.example.com",
                "HTTPS://argo",
                "ftp://argo",
                "https://",
                "https://argo:0",
                "https://argo:x",
                "https://me:mine@argo",
                "https://argo?x=1",
                "https://argo#x",
                "https://ar go",
                "https://argo\n",
                "https://{namespace}",
            )
        ),
        ({"argo_server": "http://argo:2746", "argo_token": "x"}, "argo_server:"),
        ({"argo_server": "http://127.0.0.1.example.com", "argo_token": "x"}, "argo_server:"),
        ({"argo_token": "two lines\nx"}, "argo_token"),
        ({"argo_token": "é"}, "argo_token"),
        ({"argo_server": "http://127.0.0.1", "argo_tls_ca": __file__}, "argo_tls_ca"),
        ({"argo_server": "https://argo", "argo_tls_ca": __file__, "argo_tls_skip_verify": True}, "argo_tls_ca"),
    ],
)
def test_a_server_of_argo_s_that_would_not_be_what_is_meant_is_refused(given: dict[str, Any], setting: str) -> None:
    with pytest.raises(BadInput) as refused:
        Settings(**given)
    assert refused.value.hint.split()[2] == setting
    assert "mine" not in str(refused.value)


def test_a_token_for_argo_is_not_shown_and_not_handed_on(file: Path) -> None:
    file.write_text('argo_server = "https://argo"\nargo_token = "hidden"\nargo_namespace = "others"\n')
    settings = Settings.load()
    assert "hidden" not in f"{settings!r} {settings} {settings.model_dump_json()} {settings.environment()}"
    assert settings.environment()["LOCKSTEP_ARGO_NAMESPACE"] == "others"
    assert "LOCKSTEP_ARGO_TOKEN" not in settings.environment()
    assert settings.argo_token.get_secret_value() == "hidden"


@pytest.mark.parametrize(
    "url", ["redis://a", "rediss://me:p%2Fq@a.example:6379/1", "redis://[::1]:6379", "redis://:p@a:1"]
)
def test_the_served_log_may_have_a_redis_of_its_own(url: str) -> None:
    settings = Settings(served_log_url=SecretStr(url))
    assert connect_log(settings).connection_pool.connection_kwargs["host"] in {"a", "a.example", "::1"}
    assert url not in f"{settings!r} {settings} {settings.model_dump_json()}"
    assert settings.environment()["LOCKSTEP_SERVED_LOG_URL"] == url


@pytest.mark.parametrize(
    "url",
    [
        "a:6379",
        "http://a",
        "unix:///run/redis",
        "redis://",
        "redis://:6379",
        "redis:///1",
        "redis://a:x",
        "redis://a:0",
        "redis://me:mine/too@a:6379",
        "redis://a b",
        "redis://a\n",
    ],
)
def test_a_url_of_the_served_log_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(BadInput, match="served_log_url is no redis:// or rediss:// URL") as refused:
        Settings(served_log_url=SecretStr(url))
    assert "mine" not in str(refused.value)


@pytest.mark.parametrize("namespace", ["", "a/b", "..", "Features", "x" * 64, "a\n"])
def test_a_namespace_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, namespace: str) -> None:
    monkeypatch.setenv("LOCKSTEP_ARGO_NAMESPACE", namespace)
    with pytest.raises(BadInput, match="argo_namespace"):
        Settings.load()


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_a_port_that_is_none_is_refused(file: Path, port: str) -> None:
    file.write_text(f"redis_port = {port}\n")
    with pytest.raises(BadInput, match="redis_port"):
        Settings.load()


def test_a_kind_or_a_file_that_is_not_there_is_refused(file: Path) -> None:
    file.write_text('redis_mode = "ring"\nredis_tls = true\nredis_tls_ca = "/nowhere"\n')
    with pytest.raises(BadInput, match=r"redis_mode: .*redis_tls_ca: ") as refused:
        Settings.load()
    assert str(file) in refused.value.hint
