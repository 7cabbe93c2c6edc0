"""What is told of a run that ended badly, and that telling it never makes things worse."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from pydantic import SecretStr

from lockstep.monitoring import run_report as reporting
from lockstep.monitoring.run_report import run_report, send
from lockstep.settings import Settings

FAILED = [
    {"displayName": "main", "templateName": "main", "phase": "Failed", "message": "child 'x' failed"},
    {
        "displayName": "write(0:index:0,of:1)",
        "templateName": "write-chunk",
        "phase": "Failed",
        "message": "main: Error (exit code 2): VerificationFailed: spend: 3 keys are missing",
        "podName": "p",
    },
]
GIVEN = '[{"name":"window_end","value":"2018-06-01T12:00:00Z"}]'


class Receiver(HTTPServer):
    """Takes reports, but for the first ones."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.taken: list[dict[str, object]] = []
        self.refusals, self.status = 0, 503

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"http://127.0.0.1:{self.server_port}/secret-path")


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.refusals:
            self.server.refusals -= 1
            self.send_response(self.server.status)
        else:
            self.server.taken.append(document)
            self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(reporting, "wait_exponential", lambda **_: lambda _state: 0)
    with Receiver() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def report(failures: str = json.dumps(json.dumps(FAILED))) -> reporting.RunReport:
    return run_report("fraud-backfill-x7", "fraud-backfill", "Failed", failures, GIVEN)


def test_the_first_lines_say_what_broke_and_what_it_was_given() -> None:
    assert report().text.splitlines() == [
        "fraud-backfill-x7 Failed",
        f"write(0:index:0,of:1) (write-chunk) Failed: {FAILED[1]['message']}",
        f"given {GIVEN}",
    ]
    assert [failure.displayName for failure in report().failures] == ["main", "write(0:index:0,of:1)"]


@pytest.mark.parametrize("failures", [json.dumps(FAILED), json.dumps(json.dumps(FAILED))])
def test_failures_are_read_quoted_once_and_twice(failures: str) -> None:
    assert len(report(failures).failures) == 2


def test_a_run_without_failed_nodes_is_told_too() -> None:
    assert report("").text == f"fraud-backfill-x7 Failed\ngiven {GIVEN}"


@pytest.mark.parametrize("failures", ["{", '"{"', "[1]", '{"displayName": 1}', r'"[{\"message\":\"\x7f\"}]"'])
def test_failures_that_cannot_be_read_are_told_as_they_are(failures: str) -> None:
    assert report(failures).text == f"fraud-backfill-x7 Failed\n{failures}\ngiven {GIVEN}"


@pytest.mark.parametrize("failures", ["null", '"null"', '""', "[]"])
def test_no_failures_are_none_however_argo_says_so(failures: str) -> None:
    assert report(failures).failures == []


def test_each_node_that_failed_itself_is_told_whatever_its_message() -> None:
    late = {"displayName": "compute", "templateName": "compute-view", "phase": "Failed", "message": "Step exceeded"}
    gone = {"displayName": "verify", "templateName": "verify", "phase": "Error", "message": "pod deleted"}
    lines = report(json.dumps([*FAILED, late, gone])).text.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["write(0:index:0,of:1)", "compute", "verify"]


def test_it_is_posted_with_a_text_and_its_parts(settings: Settings, receiver: Receiver) -> None:
    told = send(settings.model_copy(update={"report_url": receiver.url}), report())
    assert told == "report_url took the report"
    (document,) = receiver.taken
    assert document["text"] == report().text
    assert (document["workflow"], document["status"], document["parameters"]) == ("fraud-backfill-x7", "Failed", GIVEN)


def test_it_is_tried_again(settings: Settings, receiver: Receiver) -> None:
    receiver.refusals = 3
    assert send(settings.model_copy(update={"report_url": receiver.url}), report()) == "report_url took the report"


def test_that_nobody_takes_it_is_said_without_the_address(settings: Settings, receiver: Receiver) -> None:
    receiver.refusals = 9
    told = send(settings.model_copy(update={"report_url": receiver.url}), report())
    assert told == "report_url did not take the report, tried 4 times: HTTPStatusError 503"
    assert receiver.taken == []


def test_what_no_repetition_helps_is_not_repeated(settings: Settings, receiver: Receiver) -> None:
    receiver.refusals, receiver.status = 9, 404
    told = send(settings.model_copy(update={"report_url": receiver.url}), report())
    assert told == "report_url did not take the report, tried 1 times: HTTPStatusError 404"


def test_a_broken_setting_of_the_machine_fails_nothing(settings: Settings, receiver: Receiver, monkeypatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "foo://x")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    secure = SecretStr(receiver.url.get_secret_value().replace("http:", "https:"))
    assert send(settings.model_copy(update={"report_url": secure}), report()).startswith("report_url did not take")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "not a url", "ftp://x", "http://[", "http://a b/"])
def test_an_address_that_leads_nowhere_fails_nothing(settings: Settings, monkeypatch, url: str) -> None:
    monkeypatch.setattr(reporting, "wait_exponential", lambda **_: lambda _state: 0)
    told = send(settings.model_copy(update={"report_url": SecretStr(url)}), report())
    assert told.startswith("report_url did not take the report")
    assert url not in told


def test_without_an_address_that_is_said(settings: Settings) -> None:
    assert send(settings, report()) == "report_url is not set: nobody was told"


def test_the_address_is_handed_on_to_other_processes_and_not_shown(settings: Settings) -> None:
    told = settings.model_copy(update={"report_url": SecretStr("https://chat/hook")})
    assert "hook" not in repr(told)
    assert told.environment()["LOCKSTEP_REPORT_URL"] == "https://chat/hook"
