"""The page of the threat model names tests that exist."""

from __future__ import annotations

import ast
import re

from tests.project import ROOT

PAGE = ROOT / "docs" / "security.md"


def test_every_test_that_the_threat_model_names_exists():
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8")))
    assert len(named) > 55
    existing = {
        node.name
        for folder in ("tests", "orchestration/tests")
        for path in (ROOT / folder).rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert named <= existing, sorted(named - existing)
