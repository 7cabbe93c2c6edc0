"""The whole loop, for real: a clean model is promoted, a misread column and a tampered store are not."""

import json
import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.local.lock import hold
from lockstep.online import store
from lockstep.online.layout import field_of
from lockstep.parity.report import ParityReport
from lockstep.settings import Settings
from pipelines._demo import Demo, Scale, run_demo
from pipelines._progress import Lines

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "manifests"
GOLDEN = Path(__file__).parent / "golden" / "demo_report.json"

pytestmark = pytest.mark.filterwarnings(
    # Feast, MLflow and KServe are imported here in one process; their own deprecations are not ours to fix.
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


BY_NAME = {"causes", "differing"}
"""What was found, by its name: which names there are is not the format's."""


def shape(value: Any, name: str = "") -> Any:
    """The names in a document, and what kind of value each has."""
    if isinstance(value, dict) and name not in BY_NAME:
        return {k: shape(v, k) for k, v in value.items()}
    return type(value).__name__


def start_demo(home: Path, *options: str, **environment: str) -> "subprocess.Popen[str]":
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOCKSTEP_")}
    command = [sys.executable, "-m", "pipelines", "demo", *options]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=kept | environment | {"LOCKSTEP_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_demo_promotes_the_clean_model_and_refuses_the_skewed_one_whatever_the_machines_zone_and_hash_seed(
    tmp_path: Path,
) -> None:
    demo = start_demo(tmp_path, "--size", "800", "--days", "2", TZ="America/New_York", PYTHONHASHSEED="7")
    said, _ = demo.communicate(timeout=400)
    assert demo.returncode == 0, said
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert shape(report) == json.loads(GOLDEN.read_text()), "scripts read report.json: see docs/design.md, formats"
    views, quality, parity, skew = report["views"], report["quality"], report["parity"], report["skew"]
    assert list(views) == [
        "customer_profile",
        "customer_spend",
        "terminal_static",
        "terminal_activity",
        "terminal_risk",
    ]
    watermarks = {name: view["watermark"] for name, view in views.items()}
    midnight = "2018-07-02T00:00:00+00:00"
    assert watermarks == dict.fromkeys(views, midnight)
    assert {view["freshness"] for view in views.values()} == {"fresh"}
    assert report["online_rows"] == sum(view["online_rows"] for view in views.values()) > 4 * 800

    assert report["promoted"] is True
    assert (parity["verdict"], parity["mismatches"], parity["causes"].get("wrong_row", 0)) == ("pass", 0, 0)
    assert parity["sampled"] >= 320
    assert parity["upper_bound"] < 0.01

    assert skew["promoted"] is False
    assert skew["parity"]["verdict"] == "fail"
    assert skew["parity"]["mismatches"] > 0
    assert skew["parity"]["differing"] == {"risk_7d": "wrong_row"}
    # Offline nothing tells the two apart, and served they are not the same.
    assert skew["model"]["average_precision"] == report["model"]["average_precision"]
    assert skew["model"]["digest"] != report["model"]["digest"]
    assert quality["after"] != quality["skewed"]
    assert quality["after"]["auc"] > quality["before"]["auc"]
    assert quality["after"]["average_precision"] > quality["before"]["average_precision"]
    assert skew["average_precision_drop"] > 0

    page = (tmp_path / "demo" / "parity.html").read_text()
    verdicts = [page.index("Version 2 passes"), page.index("Version 3 is refused")]
    assert verdicts == sorted(verdicts)
    assert "risk_7d" in page
    assert "wrong_row" in page
    assert not re.search(r"\b(live|promote): \d+ of \d+.*\x1b", said), "no bars where nobody looks"
    assert "live: 24 of 48" in said


def test_a_second_run_in_one_home_is_told_who_holds_it_and_touches_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "demo" / "report.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    with hold(tmp_path, "lockstep demo"):
        with pytest.raises(
            BadInput, match=rf"`lockstep demo` of .*, process {os.getpid()}, has held {tmp_path} since"
        ):
            run_demo(tmp_path, "feature_repo", MANIFESTS, Lines(print))
        command = [sys.executable, "-m", "pipelines", "run", "apply-definitions"]
        environment = os.environ | {"LOCKSTEP_HOME": str(tmp_path)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, kept.read_text()) == (2, "{}")
    assert "`lockstep demo` of " in done.stderr


def test_the_demo_does_not_delete_the_home_of_a_run_in_its_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    (folder / "runs").mkdir(parents=True)
    with hold(folder, "lockstep run promote"):
        with pytest.raises(BadInput, match=rf"`lockstep run promote` of .* has held {folder} since"):
            run_demo(tmp_path, "feature_repo", MANIFESTS, Lines(print))
        assert (folder / "runs").exists()


class EmptyDemo(Demo):
    """Only looks at what it is given."""

    def run(self) -> dict[str, Any]:
        home = self.settings.home
        with pytest.raises(BadInput, match=f"`lockstep demo` of .* has held {home} since"), hold(home, "lockstep run"):
            pass
        return {"found": sorted(path.name for path in home.iterdir())}


def test_the_demo_s_folder_is_emptied_and_held_while_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    (folder / "warehouse" / "deep").mkdir(parents=True)
    (folder / "ledger.db").write_text("rows")
    (folder / "elsewhere").symlink_to(tmp_path)
    report = run_demo(tmp_path, "feature_repo", MANIFESTS, Lines(print), Scale(), EmptyDemo)
    assert report["found"] == [".lock", ".lock.holder", "lockstep.toml", "logs", "redis"]
    assert json.loads((folder / "report.json").read_text()) == report


def test_a_folder_that_cannot_be_emptied_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "demo" / "warehouse").mkdir(parents=True)
    monkeypatch.setattr("pipelines._demo.home.shutil.rmtree", refuse)
    with pytest.raises(BadInput, match=r"demo cannot be emptied: .*Permission denied: .*warehouse"):
        run_demo(tmp_path, "feature_repo", MANIFESTS, Lines(print))


def test_a_link_in_the_place_of_the_demo_s_folder_is_refused_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "rows").write_text("1")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "demo").symlink_to(precious)
    with pytest.raises(BadInput, match=r"demo is a link, and what it leads to would be deleted"):
        run_demo(tmp_path / "home", "feature_repo", MANIFESTS, Lines(print))
    assert [path.name for path in precious.iterdir()] == ["rows"]


def processes_of(home: Path) -> list[str]:
    """The command lines of running processes that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and (str(home) in words or str(home) in environment):
                found.append(words)
    return found


@pytest.mark.parametrize(
    ("number", "stage", "processes"), [(signal.SIGINT, "simulate", 1), (signal.SIGTERM, "live", 7)]
)
def test_an_interrupted_demo_leaves_no_process_behind(
    tmp_path: Path, number: signal.Signals, stage: str, processes: int
) -> None:
    demo = start_demo(tmp_path, "--size", "100", "--days", "1", PYTHONUNBUFFERED="1")
    assert demo.stdout is not None
    assert any(line.startswith(f"{stage} ...") for line in demo.stdout), "the stage begins"
    assert len(processes_of(tmp_path)) == processes, "the demo, and each model's two servers once they are served"
    redis = Path("/proc") / (tmp_path / "demo" / "redis" / "redis.pid").read_text().strip()
    assert redis.exists()

    demo.send_signal(number)
    said, _ = demo.communicate(timeout=60)

    assert demo.returncode == 128 + number, said
    assert processes_of(tmp_path) == []
    assert not redis.exists()


class TamperedDemo(Demo):
    """Somebody changes stored values behind the writer's back, and the model is served with them from then on."""

    tampered_at = 3

    def _workflow(self, name: str, *, tolerate_refusal: bool = False, **parameters: str) -> Any:
        done = super()._workflow(name, tolerate_refusal=tolerate_refusal, **parameters)
        if name == "compute-and-materialize":
            self.tampered_at -= 1
            if self.tampered_at < 0:
                with store.connect(self.settings) as redis:
                    for key in redis.scan_iter(_type="hash"):
                        if redis.hexists(key, "_ts:terminal_risk"):
                            redis.hset(key, field_of("terminal_risk", "nb_tx_7d"), b"\x20\x63")  # an int64 of 99
        return done


def test_a_tampered_store_is_found_named_and_refused(tmp_path: Path) -> None:
    small = Scale(size=300, history=timedelta(days=80), days=1)
    said: list[str] = []
    report = run_demo(tmp_path, "feature_repo", MANIFESTS, Lines(said.append), small, TamperedDemo)
    assert report["promoted"] is False
    assert report["parity"]["verdict"] == "fail"
    assert report["parity"]["mismatches"] > 0
    lake = Lake.open(Settings(home=tmp_path / "demo").resolved(), "fraud")
    texts = lake.table("parity_reports").scan().to_arrow()["json"].to_pylist()
    found = next(r for r in map(ParityReport.model_validate_json, texts) if r.hash == report["parity"]["report"])
    assert {cause for cause in found.causes if cause not in {"early", "late"}} == {"corruption"}
    assert {d.view for d in found.differences if d.cause == "corruption"} == {"terminal_risk"}
    assert {f.name: f.differing > 0 for f in found.features if f.view == "terminal_risk"} == {
        "nb_tx_1d": False,
        "risk_1d": False,
        "nb_tx_7d": True,
        "risk_7d": False,
        "nb_tx_30d": False,
        "risk_30d": False,
    }
    refusals = [log.read_text() for log in tmp_path.glob("demo/runs/*-promote/*gate*.log")]
    assert len(refusals) == 2
    assert all("is not promoted: the report's verdict is fail" in text for text in refusals)
