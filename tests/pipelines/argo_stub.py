"""As much of Argo's server as `lockstep submit` and `lockstep runs` ask for, over loopback HTTP or TLS.

Shaped after https://github.com/argoproj/argo-workflows (server/workflow/workflow_server.go, util/fields/fields.go): errors are
`{"code": …, "message": …}`, times that are not set are null, so is a list of none.
"""

import json
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

Document = dict[str, Any]
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14}
LABEL = "workflows.argoproj.io/workflow-template"


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: Document | None = None
    authorization: str = ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that fails is the client's to tell."""


@dataclass
class ArgoStub:
    """A server of one namespace.

    Attributes:
        token: whose bearer may ask.
        templates: the WorkflowTemplates that are applied, by name.
        workflows: by name.
        steps: what happens to the submitted workflows, one each time that one is asked for.
        faults: what the next requests of a method get instead of an answer: a status, a (status, body), "cut" (the connection
            is broken off), or "cut after" (only after it was done).
        asked: every request.
    """

    namespace: str = "features"
    token: str = "hidden-token"  # noqa: S105
    templates: dict[str, Document] = field(default_factory=dict)
    workflows: dict[str, Document] = field(default_factory=dict)
    steps: list[Callable[[Document], None]] = field(default_factory=list)
    faults: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    tls: tuple[Path, Path] | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def posted(self) -> list[Document | None]:
        return [one.body for one in self.asked if one.method == "POST"]

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def settle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the settings name this server."""
        monkeypatch.setenv("LOCKSTEP_ARGO_SERVER", self.url)
        monkeypatch.setenv("LOCKSTEP_ARGO_TOKEN", self.token)

    def answer(self, asked: Asked) -> tuple[int, Any]:
        if asked.authorization != f"Bearer {self.token}":
            return self.error(401, "token not valid. see https://argo-workflows.readthedocs.io/en/latest/faq/")
        kind, namespace, *rest = asked.path.removeprefix("/api/v1/").split("/")
        if namespace != self.namespace:
            return self.error(403, f'workflows.argoproj.io is forbidden in the namespace "{namespace}"')
        match asked.method, kind, rest:
            case "GET", "workflow-templates", [name]:
                return self._found(self.templates, "workflowtemplates", name, asked)
            case "POST", "workflows", ["submit"]:
                return self._submit(asked.body or {})
            case "GET", "workflows", [name]:
                if self.steps and name in self.workflows:
                    self.steps.pop(0)(self.workflows[name])
                return self._found(self.workflows, "workflows", name, asked)
            case "GET", "workflows", []:
                return self._list(asked.query)
        return self.error(404, "Not Found")

    @staticmethod
    def error(status: int, message: str) -> tuple[int, Document]:
        return status, {"code": CODES[status], "message": message}

    def _found(self, there: dict[str, Document], kind: str, name: str, asked: Asked) -> tuple[int, Document]:
        if name not in there:
            return self.error(404, f'{kind}.argoproj.io "{name}" not found')
        return 200, _clean(there[name], asked.query.get("fields", ""))

    def _submit(self, body: Document) -> tuple[int, Document]:
        options, template = body["submitOptions"], body["resourceName"]
        if template not in self.templates:
            return self.error(404, f'workflowtemplates.argoproj.io "{template}" not found')
        if options["name"] in self.workflows:
            return self.error(409, f'workflows.argoproj.io "{options["name"]}" already exists')
        # Like `overrideParameters`: what is before the first equals sign is the name.
        pairs = [text.split("=", 1) for text in options.get("parameters", [])]
        made = workflow(options["name"], template, dict(pairs))
        self.workflows[options["name"]] = made
        return 200, made

    def _list(self, query: dict[str, str]) -> tuple[int, Document]:
        selected = [w for w in self.workflows.values() if _selects(query.get("listOptions.labelSelector", ""), w)]
        # `order by startedat desc`: what has not started comes last.
        selected.sort(key=lambda w: w["status"]["startedAt"] or "", reverse=True)
        page = selected[: int(query["listOptions.limit"])]
        return 200, _clean({"metadata": {"resourceVersion": "1"}, "items": page or None}, query["fields"])


def workflow(name: str, template: str, parameters: dict[str, str], **status: Any) -> Document:
    """A workflow as it is when it was just created; `status` is added to its status."""
    return {
        "metadata": {
            "name": name,
            "namespace": "features",
            "creationTimestamp": "2026-01-02T03:00:00Z",
            "labels": {LABEL: template, "workflows.argoproj.io/phase": status.get("phase", "Pending")},
            "managedFields": [{"manager": "argo", "operation": "Update", "time": "2026-01-02T03:00:00Z"}],
        },
        "spec": {
            "arguments": {"parameters": [{"name": k, "value": v} for k, v in parameters.items()]},
            "workflowTemplateRef": {"name": template},
        },
        "status": {"startedAt": None, "finishedAt": None, **status},
    }


def node(name: str, phase: str, second: int, kind: str = "Pod", **more: Any) -> tuple[str, Document]:
    """A node's id and its status; it began at `second` and, if it has ended, took 5 s."""
    ended = phase not in ("Running", "Pending")
    return f"id-{name}", {
        "id": f"id-{name}",
        "name": name,
        "displayName": name.rsplit(".", maxsplit=1)[-1],
        "type": kind,
        "phase": phase,
        "templateName": "step",
        "startedAt": f"2026-01-02T03:00:{second:02}Z",
        "finishedAt": f"2026-01-02T03:00:{second + 5:02}Z" if ended else None,
        "progress": "0/1",
        "resourcesDuration": {"cpu": 1, "memory": 2},
        **more,
    }


def _handler(stub: ArgoStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length", "0"))
            body = json.loads(self.rfile.read(length)) if length else None
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            given = self.headers.get("Authorization", "")
            asked = Asked(self.command, unquote(parts.path), query, body, given)
            stub.asked.append(asked)
            fault = stub.faults[asked.method].pop(0) if stub.faults.get(asked.method) else None
            if fault == "cut":
                return
            status, answer = stub.answer(asked) if fault in (None, "cut after") else _of_fault(fault)
            if fault == "cut after":
                return
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if 300 <= status < 400:
                self.send_header("Location", "https://login.example.com/")
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


def _of_fault(fault: Any) -> tuple[int, Any]:
    return fault if isinstance(fault, tuple) else ArgoStub.error(fault, "so it is")


def _selects(selector: str, found: Document) -> bool:
    labels = found["metadata"]["labels"]
    for requirement in re.split(r",(?![^(]*\))", selector):
        if several := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", requirement):
            if (labels.get(several[1]) in several[3].split(",")) != (several[2] == "in"):
                return False
        elif labels.get(requirement.split("=")[0]) != requirement.split("=")[1]:
            return False
    return True


def _clean(document: Document, fields: str) -> Document:
    """Keep the fields that were asked for; what Go has no `omitempty` for is there all the same."""
    if not fields:
        return document
    wanted = set(fields.split(","))

    def keep(path: str, value: Any) -> Any:
        if isinstance(value, list):
            return [keep(path, item) for item in value]
        if not isinstance(value, dict):
            return value
        kept = {}
        for key, inner in value.items():
            here = f"{path}.{key}".lstrip(".")
            if here in wanted:
                kept[key] = inner
            elif any(want.startswith(here) for want in wanted):
                kept[key] = keep(here, inner)
        return kept

    cleaned = keep("", document)
    for one in cleaned["items"] or [] if "items" in document else [cleaned]:
        one.setdefault("metadata", {})
        one.setdefault("spec", {})
    return cleaned
