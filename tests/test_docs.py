"""What the documents name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PATH = re.compile(
    r"`((?:tests|docs|pipelines|steps|lockstep|benchmarks|manifests|images|feature_repo|\.github)/[\w./-]*)`"
)
LINK = re.compile(r"\]\(([^)#:]+)(?:#([\w-]*))?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_path_that_a_document_names_is_there(document: Path) -> None:
    named = PATH.findall(document.read_text(encoding="utf-8"))
    missing = [path for path in named if "NAME" not in path and not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_leads_to_a_page_and_a_heading(document: Path) -> None:
    for target, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        page = document.parent / target
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, f"{target}#{anchor}"


def test_the_readme_lists_each_workflow() -> None:
    rendered = {path.parent.name for path in (ROOT / "manifests").rglob("workflowtemplate.yaml")}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.search(r"`NAME` is one of (.*?);", text, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`([\w-]+)`", listed[1])) == rendered
