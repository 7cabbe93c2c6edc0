"""`lockstep submit` against a stub of Argo's server: what is sent, what is not, and what a person is told."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from argo_stub import ArgoStub
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipelines._server import argo as argo_server
from pipelines._server import submit
from pipelines.cli import main
from pipelines.render import write

pytestmark = pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # Hera's service calls it
NAME = r"lab-numbers-[0-9a-f]{8}"


@pytest.fixture(autouse=True)
def manifests(tmp_path: Path) -> Path:
    write(tmp_path / "manifests", "lab_pipelines")
    return tmp_path / "manifests"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "AFTERTHOUGHT", 0.01)


Told = Callable[[], tuple[str, str]]


@pytest.mark.parametrize("name", ["numbers", "lab-numbers"])
def test_what_is_sent_is_the_name_of_the_applied_template_and_the_given_parameters(
    argo: ArgoStub, told: Told, name: str
):
    assert main(["submit", name, "-p", "count=2"]) == 0
    out, err = told()
    [run] = argo.workflows
    assert re.fullmatch(NAME, run)
    assert [(one.method, one.path) for one in argo.asked] == [
        ("GET", "/api/v1/workflow-templates/features/lab-numbers"),
        ("POST", "/api/v1/workflows/features/submit"),
    ]
    assert argo.posted == [
        {
            "namespace": "features",
            "resourceKind": "WorkflowTemplate",
            "resourceName": "lab-numbers",
            "submitOptions": {"name": run, "parameters": ["count=2"]},
        }
    ]
    assert (out, err) == (
        (
            f"{run} is submitted\nwatch it:   lockstep runs {run} --watch\n"
            f"look at it: {argo.url}/workflows/features/{run}\n"
        ),
        "",
    )


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a=b=c",
        "two\nlines\r\n",
        "\"quoted\" 'twice' \\ `x`",
        "1",
        "true",
        "null",
        "~",
        "é☃𝄞",
        "[1, 2]",
        "x" * 2**20,
    ],
)
def test_a_value_arrives_as_it_was_given(argo: ArgoStub, value: str):
    assert main(["submit", "say", "-p", f"text={value}"]) == 0
    [made] = argo.workflows.values()
    assert made["spec"]["arguments"]["parameters"] == [{"name": "text", "value": value}]


def test_json_is_for_scripts(argo: ArgoStub, told: Told):
    assert main(["submit", "numbers", "-p", "count=2", "--json"]) == 0
    [run] = argo.workflows
    assert json.loads(told()[0]) == {
        "name": run,
        "namespace": "features",
        "template": "lab-numbers",
        "parameters": {"count": "2"},
        "page": f"{argo.url}/workflows/features/{run}",
    }


def test_a_dry_run_shows_what_would_be_sent_and_asks_nobody(argo: ArgoStub, told: Told, monkeypatch):
    assert main(["submit", "numbers", "-p", "count=2", "--dry-run"]) == 0
    first, body = told()[0].split("\n", 1)
    assert first == f"POST {argo.url}/api/v1/workflows/features/submit"
    shown = json.loads(body)
    assert re.fullmatch(NAME, shown["submitOptions"].pop("name"))
    assert shown == {
        "namespace": "features",
        "resourceKind": "WorkflowTemplate",
        "resourceName": "lab-numbers",
        "submitOptions": {"parameters": ["count=2"]},
    }
    monkeypatch.delenv("LOCKSTEP_ARGO_SERVER")
    assert main(["submit", "numbers", "-p", "count=2", "--dry-run", "--json"]) == 0
    assert json.loads(told()[0])["resourceName"] == "lab-numbers"
    assert main(["submit", "numbers", "--dry-run"]) == 2
    assert argo.asked == []


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["numbres", "-p", "count=1"], "there is no workflow 'numbres'\n\nHint: did you mean 'numbers'?"),
        (["lab-numbres", "-p", "count=1"], "there is no workflow 'lab-numbres'\n\nHint: did you mean 'numbers'?"),
        (
            ["numbers", "-p", "cuont=1"],
            "workflow 'lab-numbers' has no parameter 'cuont'\n\nHint: did you mean 'count'?",
        ),
        (["numbers"], "workflow 'lab-numbers' needs a value for its parameter 'count'\n\nHint: pass -p count=…"),
        (["numbers", "-p", "count"], "-p 'count' is not NAME=VALUE"),
        (["numbers", "-p", "count=1", "-p", "count=2"], "-p count=… is given twice"),
        (["gated", "-p", "way=exti"], "parameter 'way' cannot be 'exti'\n\nHint: did you mean 'exit'?"),
        (
            ["say", "-p", "text={{workflow.name}}"],
            (
                "parameter 'text' has {{ in it, which Argo would take for a tag of its own\n\n"
                "Hint: only `lockstep run` takes such a value as it is"
            ),
        ),
        (["say", "-p", "text=\udcff"], "parameter 'text' is not UTF-8, which is all that JSON can hold"),
    ],
)
def test_bad_input_is_said_before_the_server_is_asked(argo: ArgoStub, told: Told, args: list[str], sentence: str):
    assert main(["submit", *args]) == 2
    assert told() == ("", f"error: {sentence}\n")
    assert argo.asked == []


WINDOWED = """
from hera.workflows import DAG, Parameter, WorkflowTemplate
from lab_steps.echo import echo
from pipelines._project import resource_name

def build():
    arguments = [Parameter(name="start"), Parameter(name="end")]
    with WorkflowTemplate(name=resource_name("windowed"), entrypoint="main", arguments=arguments) as template:
        with DAG(name="main", inputs=[Parameter(name="start"), Parameter(name="end")]) as main:
            echo(name="echo", arguments={"text": main.get_parameter("start")})
    return template

RESOURCES = (build,)
"""


@pytest.mark.parametrize(
    ("start", "end", "sentence"),
    [
        ("2018-07-01T00:00:00Z", "2018-06-01T00:00:00Z", "the window ends before it begins"),
        ("2018-06-01T00:00:00", "2018-07-01T00:00:00Z", "parameter 'start' has no time zone: 2018-06-01T00:00:00"),
        ("2018-06-01T00:00:00Z", "soon", "parameter 'end' is no ISO 8601 time: 'soon'"),
    ],
)
def test_a_reversed_or_zoneless_window_is_not_submitted(
    argo: ArgoStub, told: Told, manifests: Path, package: Callable[..., str], start: str, end: str, sentence: str
):
    write(manifests, package("windowed_pipelines", windowed=WINDOWED))
    assert main(["submit", "windowed", "-p", f"start={start}", "-p", f"end={end}"]) == 2
    assert sentence in told()[1]
    assert argo.asked == []


def test_without_a_server_it_says_how_to_name_one(told: Told, monkeypatch: pytest.MonkeyPatch):
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    assert told()[1] == (
        "error: no Argo server is named\n\n"
        "Hint: set LOCKSTEP_ARGO_SERVER=https://…, LOCKSTEP_ARGO_TOKEN and LOCKSTEP_ARGO_NAMESPACE\n"
    )
    monkeypatch.setenv("ARGO_SERVER", "argo:2746")
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    assert told()[1].endswith("ARGO_SERVER, ARGO_TOKEN and ARGO_NAMESPACE are the `argo` command's, and not read\n")


def test_a_server_that_is_not_there(told: Told, monkeypatch: pytest.MonkeyPatch):
    with ArgoStub() as gone:
        gone.settle(monkeypatch)
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    error = told()[1]
    assert f"error: not submitted: no Argo server is reached at {gone.url}: " in error
    assert "Connection refused" in error
    assert "is LOCKSTEP_ARGO_SERVER right" in error


@pytest.mark.parametrize("token", ["", "another", "Bearer another"])
def test_a_token_that_is_not_taken(argo: ArgoStub, told: Told, monkeypatch: pytest.MonkeyPatch, token: str):
    monkeypatch.setenv("LOCKSTEP_ARGO_TOKEN", token)
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    error = told()[1]
    assert f"error: not submitted: {argo.url} answers 401: token not valid." in error
    assert ("no token is given" if not token else "the token is not taken") in error
    assert "LOCKSTEP_ARGO_TOKEN=$(kubectl create token SERVICE_ACCOUNT -n features)" in error
    assert "another" not in error
    assert argo.posted == []


@pytest.mark.parametrize("token", ["hidden-token", " hidden-token\n", "Bearer hidden-token"])
def test_a_token_is_taken_as_kubectl_or_argo_print_it(argo: ArgoStub, monkeypatch: pytest.MonkeyPatch, token: str):
    monkeypatch.setenv("LOCKSTEP_ARGO_TOKEN", token)
    assert main(["submit", "numbers", "-p", "count=1"]) == 0


def test_another_namespace_that_is_not_allowed(argo: ArgoStub, told: Told, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCKSTEP_ARGO_NAMESPACE", "others")
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    error = told()[1]
    assert 'answers 403: workflows.argoproj.io is forbidden in the namespace "others"' in error
    assert "in the namespace 'others', workflows: create, get, list; workflowtemplates: get" in error
    assert argo.posted == []


def test_a_template_that_is_not_applied(argo: ArgoStub, told: Told):
    argo.templates.clear()
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    assert (
        f"not submitted: there is no WorkflowTemplate 'lab-numbers' in the namespace 'features' of {argo.url}"
        in told()[1]
    )
    assert argo.posted == []


def test_an_applied_template_that_takes_other_parameters(argo: ArgoStub, told: Told):
    argo.templates["lab-numbers"]["spec"]["arguments"]["parameters"] = [{"name": "size"}]
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    error = told()[1]
    assert "not submitted: in the cluster, workflow 'lab-numbers' has no parameter 'count'" in error
    assert "the WorkflowTemplate there is not the committed one: apply that first (known: size)" in error
    assert argo.posted == []


REFUSALS = [
    (400, "answers 400: so it is"),
    (403, "answers 403: so it is"),
    ((400, b"x" * 5_000), f"answers 400: {'x' * 500}…\n"),
    ((307, b""), "answers 307: Temporary Redirect"),
]
NO_ANSWERS = [
    (500, "answers 500: so it is"),
    (503, "answers 503: so it is"),
    (429, "answers 429: so it is"),
    ((502, b"<html>Bad\x1b[31mGateway</html>"), "answers 502: <html>Bad [31mGateway</html>"),
    ((500, {"message": "no hidden-token here"}), "answers 500: no … here"),
    ((200, b"<html>please log in</html>"), "is not what an Argo server would"),
    ((200, {"metadata": 1}), "is not what an Argo server would"),
    ("cut", "broke the connection off"),
]


@pytest.mark.parametrize(
    ("method", "fault", "sentence"),
    [("POST", *one) for one in REFUSALS] + [("GET", *one) for one in REFUSALS + NO_ANSWERS],
)
def test_a_refusal_or_a_template_that_is_not_to_be_had_submits_nothing(
    argo: ArgoStub, told: Told, method: str, fault: Any, sentence: str
):
    argo.faults[method] = [fault]
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    out, error = told()
    assert (out, argo.workflows) == ("", {})
    assert error.startswith("error: not submitted: ")
    assert sentence in error
    assert len(argo.posted) == (method == "POST")


@pytest.mark.parametrize(("fault", "sentence"), NO_ANSWERS)
def test_a_request_that_is_not_answered_is_sent_again_as_it_was(argo: ArgoStub, told: Told, fault: Any, sentence: str):
    argo.faults["POST"] = [fault, fault]
    assert main(["submit", "numbers", "-p", "count=1"]) == 0
    [run] = argo.workflows
    assert len(argo.posted) == 3
    assert all(one == argo.posted[0] for one in argo.posted)
    out, error = told()
    assert out.startswith(f"{run} is submitted\n")
    assert sentence in error
    assert error.endswith(f"; {run} is asked for again, which starts no second one\n")


def after_it_was_done(argo: ArgoStub, *answers: Any) -> None:
    """What the next requests to submit get, although their workflow is there; at the end always the last of them."""
    do, left = argo.answer, list(answers)

    def answer(asked: Any) -> tuple[int, Any]:
        done = do(asked)
        return done if asked.method != "POST" else left.pop(0) if len(left) > 1 else left[0]

    argo.answer = answer  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "fault",
    [
        (504, b"timeout"),
        (200, b"<html>"),
        (409, {"code": 6, "message": "already exists"}),
        (400, {"code": 3, "message": "Post https://10.0.0.1/apis/argoproj.io/v1alpha1: EOF"}),
    ],
)
def test_what_was_submitted_is_submitted_whatever_the_answer_says(argo: ArgoStub, told: Told, fault: Any):
    after_it_was_done(argo, fault)
    assert main(["submit", "numbers", "-p", "count=1"]) == 0
    [run] = argo.workflows
    out, error = told()
    assert (out.startswith(f"{run} is submitted\n"), error) == (True, "")
    assert len(argo.posted) == 1


def test_a_request_that_came_through_before_it_was_cut_is_one_run(argo: ArgoStub, told: Told):
    argo.faults = {"POST": ["cut after"], "GET": [None, 503]}
    assert main(["submit", "numbers", "-p", "count=1"]) == 0
    [run] = argo.workflows  # the second request was answered 409
    assert told()[0].startswith(f"{run} is submitted\n")
    assert len(argo.posted) == 2


def test_a_conflict_about_something_else_is_tried_again(argo: ArgoStub, told: Told):
    argo.faults["POST"] = [(409, {"code": 6, "message": 'Operation cannot be fulfilled on resourcequotas "team"'})]
    assert main(["submit", "numbers", "-p", "count=1"]) == 0
    assert list(argo.workflows) == [argo.posted[0]["submitOptions"]["name"]]  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_run_that_appears_later_than_anybody_looks_is_not_said_to_be_not_submitted(
    argo: ArgoStub, told: Told, status: int
):
    argo.faults["POST"] = [(status, {"message": "upstream request timeout"})] * 9
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    out, error = told()
    name = str(argo.posted[0]["submitOptions"]["name"])  # pyright: ignore[reportOptionalSubscript]
    assert out == ""
    assert error.endswith(
        f"error: not known whether {name} was submitted: {argo.url} answers {status}: upstream request timeout\n\n"
        f"Hint: it may still appear: before you submit again, `lockstep runs {name}`\n"
    )
    assert "not submitted" not in error


@pytest.mark.parametrize("then", [401, 403, 404, 503, (307, b"")])
def test_what_cannot_be_found_out_is_said_to_be_unknown(argo: ArgoStub, told: Told, then: Any):
    argo.faults = {"POST": ["cut after", *[then] * 9], "GET": [None, *[then] * 9]}
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    error = told()[1]
    assert re.search(rf"error: not known whether {NAME} was submitted: \S+ broke the connection off", error)
    assert re.search(rf"Hint: it may still appear: before you submit again, `lockstep runs {NAME}`", error)


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)


@pytest.mark.parametrize("when", ["before it is done", "after it was done", "while it is looked for"])
def test_ctrl_c_names_the_run_that_may_have_been_submitted(argo: ArgoStub, told: Told, when: str):
    do = argo.answer

    def answer(asked: Any) -> tuple[int, Any]:
        if (asked.method == "POST" and when == "before it is done") or "/workflows/features/lab-" in asked.path:
            interrupted()
        done = do(asked)
        if asked.method == "POST" and when == "after it was done":
            interrupted()
        return (504, b"timeout") if asked.method == "POST" else done

    argo.answer = answer  # type: ignore[method-assign]
    assert main(["submit", "numbers", "-p", "count=1"]) == 130
    [name] = {one["submitOptions"]["name"] for one in argo.posted if one}
    assert told() == ("", f"interrupted; {name} may have been submitted: `lockstep runs {name}`\n")


def test_ctrl_c_before_anything_is_sent_names_no_run(argo: ArgoStub, told: Told):
    do = argo.answer

    def answer(asked: Any) -> tuple[int, Any]:
        interrupted()
        return do(asked)

    argo.answer = answer  # type: ignore[method-assign]
    assert main(["submit", "numbers", "-p", "count=1"]) == 130
    assert told()[1].strip() == "interrupted"
    assert argo.posted == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    argo: ArgoStub, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert main(["submit", "numbers", "-p", "count=1"]) == 0


def test_a_netrc_does_not_replace_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argo: ArgoStub):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(argo_server, "is_loopback", lambda _: False)  # whose environment is read
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert main(["submit", "numbers", "-p", "count=1"]) == 0
    assert {one.authorization for one in argo.asked} == {"Bearer hidden-token"}


def test_a_server_below_a_path(argo: ArgoStub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCKSTEP_ARGO_SERVER", f"{argo.url}/argo/")
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    assert argo.asked[0].path == "/argo/api/v1/workflow-templates/features/lab-numbers"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "argo")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    unlocked = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    (folder / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, unlocked))
    return folder / "crt", folder / "key"


@pytest.fixture
def secure(applied: dict[str, Any], certificate, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArgoStub]:
    with ArgoStub(templates=applied, tls=certificate) as stub:
        stub.settle(monkeypatch)
        yield stub


def test_a_certificate_is_verified_against_the_authorities_that_are_named(
    secure: ArgoStub, certificate: tuple[Path, Path], told: Told, monkeypatch: pytest.MonkeyPatch
):
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    error = told()[1]
    assert f"error: not submitted: the certificate of {secure.url} is not trusted: " in error
    assert "self-signed certificate" in error
    assert "LOCKSTEP_ARGO_TLS_CA names the file" in error
    assert secure.asked == []
    monkeypatch.setenv("LOCKSTEP_ARGO_TLS_CA", str(certificate[0]))
    assert main(["submit", "numbers", "-p", "count=1"]) == 0
    assert told()[1] == ""


def test_a_certificate_of_another_host_is_refused_whoever_signed_it(
    secure: ArgoStub, certificate: tuple[Path, Path], told: Told, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOCKSTEP_ARGO_TLS_CA", str(certificate[0]))
    monkeypatch.setenv("LOCKSTEP_ARGO_SERVER", secure.url.replace("127.0.0.1", "localhost"))
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    assert "certificate is not valid for 'localhost'" in told()[1]


def test_no_certificate_is_verified_only_if_that_is_asked_for_and_it_is_said(
    secure: ArgoStub, told: Told, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOCKSTEP_ARGO_TLS_SKIP_VERIFY", "true")
    assert main(["submit", "numbers", "-p", "count=1"]) == 0
    assert told()[1] == (f"warning: the certificate of {secure.url} is not verified (argo_tls_skip_verify)\n")


def test_a_file_of_authorities_that_is_none(secure: ArgoStub, told: Told, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCKSTEP_ARGO_TLS_CA", __file__)
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    assert told()[1].endswith("Hint: see to LOCKSTEP_ARGO_TLS_CA\n")
    assert secure.asked == []


def test_tls_where_there_is_none_and_none_where_there_is(
    argo: ArgoStub, secure: ArgoStub, told: Told, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOCKSTEP_ARGO_SERVER", argo.url.replace("http", "https"))
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    assert "does not speak TLS" in told()[1]
    monkeypatch.setenv("LOCKSTEP_ARGO_SERVER", secure.url.replace("https", "http"))
    assert main(["submit", "numbers", "-p", "count=1"]) == 2
    assert told()[1].startswith("error: not submitted: ")
