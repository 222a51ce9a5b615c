"""dbt's documentation page of a demo release, and the pages of the repository."""

from __future__ import annotations

import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from catalunya.errors import BuildFailed
from catalunya.publication import demo_notice
from catalunya.runs import dbt_docs
from catalunya.settings import Settings
from tests.project import ROOT


def test_dbts_own_page_says_demo_data_in_its_title_and_at_the_top_of_its_body():
    page = files("dbt.task.docs").joinpath("index.html").read_text("utf-8")
    marked = dbt_docs.marked(page)
    assert marked.count(demo_notice.NOTICE) == 1
    assert "<title>DEMO DATA: dbt Docs</title>" in marked
    top = marked.partition("<body>")[2]
    assert top.index(demo_notice.NOTICE) < top.index("<svg")
    assert "display:none" not in top[: top.index(demo_notice.NOTICE)]
    assert ".app{top:24px !important" in top


@pytest.mark.parametrize("page", ["", "<html><title>dbt</title></html>", "<html><body></body></html>"])
def test_a_page_that_cannot_be_marked_is_an_error_not_an_unmarked_page(page):
    with pytest.raises(BuildFailed, match="cannot be marked as demo data"):
        dbt_docs.marked(page)


def test_every_variable_that_a_page_names_is_read_somewhere():
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "orchestration" / "README.md",
        *(ROOT / "docs").glob("*.md"),
    ]
    code = "".join(
        path.read_text("utf-8")
        for folder in ("src", "orchestration", "infrastructure", "bench", "tests", "dbt", "tools")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yml", ".sh", ".toml", ".cfg", ".sql", ".example"}
        and ".env" not in path.parts
    ) + (ROOT / "Makefile").read_text("utf-8")
    for page in pages:
        named = set(re.findall(r"\bCATALUNYA_[A-Z0-9_]*[A-Z0-9]\b", page.read_text("utf-8")))
        assert {name for name in named if name not in code} == set(), page


def test_the_page_of_the_configuration_names_every_variable_of_the_settings():
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    named = {str(field.validation_alias) for field in Settings.model_fields.values()}
    assert {name for name in named if f"`{name}`" not in page} == set()


LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


def test_no_link_between_the_pages_of_the_repository_is_broken():
    pages = [
        ROOT / name
        for name in subprocess.check_output(["git", "ls-files", "*.md"], cwd=ROOT, text=True).split()
    ]
    assert len(pages) > 15
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in LINK.findall(page.read_text("utf-8"))
        if not (page.parent / link).exists()
    ]
    assert broken == []


FOLDERS = ("", "src/catalunya", "dbt/mart/models/intermediate")


def test_the_table_of_changes_names_files_and_names_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = page.partition("## To change X, edit Y")[2].partition("## Decisions")[0]
    assert table.count("\n| ") >= 17

    def found(name: str) -> list[Path]:
        return [ROOT / folder / name for folder in FOLDERS if (ROOT / folder / name).exists()]

    named = re.findall(r"`([\w./-]+\.(?:py|sql|yml|toml)|[\w/]+/)`", table)
    assert [name for name in named if not found(name)] == []
    for name, file in re.findall(r"`(\w+)` in `([\w./-]+)`", table):
        assert re.search(rf"\b{name}\b", found(file)[0].read_text("utf-8")), (name, file)


SHELL_BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def test_a_block_of_the_guide_to_aws_is_one_command_that_leaves_the_shell_as_it_was():
    """Pasted whole, it stops at the first error; the commands are the Makefile's, which are tested."""
    blocks = [block for _, block in SHELL_BLOCK.findall((ROOT / "docs/aws.md").read_text())]
    assert len(blocks) >= 10
    for block in blocks:
        *first, last = block.rstrip().splitlines()
        assert all(line.endswith(("\\", "&&")) for line in first), block
        assert not last.endswith(("\\", "&&")), block
        for command in re.split(r"&&", block.replace("\\\n", " ")):
            assert command.split()[0] in {"make", "cp", "git"}, block
        assert not set("$`;|") & set(block), block


def test_the_targets_of_the_guide_to_aws_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ *)make ([a-z-]+)", (ROOT / "docs/aws.md").read_text(), re.MULTILINE))
    assert {"deploy", "destroy", "aws-run"} <= named
    assert named <= targets
