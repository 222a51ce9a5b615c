from __future__ import annotations

from pathlib import Path

import pytest

from catalunya.datasets import generate
from catalunya.datasets.loader import check, load
from catalunya.errors import UsageError
from tests.project import ROOT

DEFINITION = (ROOT / "datasets" / "municipalities.yml").read_text("utf-8")


def write(folder: Path, text: str, name: str = "municipalities.yml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_the_cards_of_the_repository_are_right():
    good, mistakes = check(ROOT / "datasets")
    assert mistakes == []
    assert {d.id for d in good} >= {
        "boundaries", "municipalities", "population", "service_users", "social_services",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "line_holds", "words"),
    [
        ("publisher:", "publihser:", "publihser", "no such field"),
        ("key: [municipality_id]", "key: [municipality]", "key:", "no declared column"),
        ("type: number", "type: float", "type: float", "string"),
        ("resource: 9aju-tpwc", "resource: 9aju", "resource: 9aju", "pattern"),
        ("name: latitude", "name: Latitude", "name: Latitude", "snake_case"),
        ("name: latitude", "name: select", "name: select", "reserved word"),
        ("name: latitude", "name: longitude", None, "declared twice"),
        ("name: latitude", "name: raw", None, "added by staging"),
        ('pattern: "^[0-9]{2}$"', 'pattern: "[0-9"', 'pattern: "[0-9"', "not a regular expression"),
        ('pattern: "^[0-9]{2}$"', 'pattern: "^(?!00)[0-9]{2}$"', "(?!00)", "not a regular expression"),
        (
            'pattern: "^[0-9]{2}$"',
            "minimum: 1",
            None,
            "minimum and maximum are for numbers, comarca_id is a string",
        ),
        ('pattern: "^[0-9]{2}$"', "not_in_future: true", None, "not_in_future is for dates and years"),
        ("rows: 5}", "rows: 5, quarantine_ratio: 2}", "quarantine_ratio", "less than or equal to 1"),
        ("cadence_days: 730", "cadence_days: often", "cadence_days: often", "integer"),
        ("id: municipalities", "id: towns", "id: towns", "make them equal"),
        ("grain: one row per municipality", "", None, "missing; add it"),
        ('{required: true, pattern: "^(08', '{pattern: "^(08', None, "required: true"),
        (
            "column: comarca_id, minimum: 42",
            "column: comarca, minimum: 42",
            "expectations:",
            "no declared column",
        ),
        ("between: [0.1, 3.4], ", "", "share_within, column: longitude", "between goes with"),
        ("minimum: 42, maximum: 43", "minimum: 44, maximum: 43", "minimum: 44", "above maximum"),
        ("vocabulary: [name]", "vocabulary: [nom]", "figures:", "no declared column"),
        ("totals: []", "totals: [{column: name}]", "figures:", "is no number"),
        ("{garbled_share: 0}", "{garbled: 0}", "garbled: 0", "no such field"),
    ],
)
def test_a_mistake_is_found_with_its_file_line_and_remedy(tmp_path, before, after, line_holds, words):
    assert before in DEFINITION
    text = DEFINITION.replace(before, after, 1)
    path = write(tmp_path, text)
    _, mistakes = check(tmp_path)
    assert mistakes, "the mistake was not found"
    assert any(words in m.message for m in mistakes), [str(m) for m in mistakes]
    assert all(m.file == path for m in mistakes)
    if line_holds:
        found = next(m for m in mistakes if words in m.message)
        assert line_holds in text.splitlines()[found.line - 1]


def test_a_file_that_is_not_yaml_is_named_with_its_line(tmp_path):
    write(tmp_path, "id: municipalities\ntitle: {ca: x\nkey: [\n")
    _, mistakes = check(tmp_path)
    assert mistakes[0].line >= 2
    assert "not YAML" in mistakes[0].message


def test_an_empty_folder_and_a_stray_ending_are_mistakes(tmp_path):
    assert check(tmp_path)[1]
    write(tmp_path, DEFINITION)
    write(tmp_path, DEFINITION, "towns.yaml")
    assert "rename it" in check(tmp_path)[1][0].message


def test_loading_a_wrong_card_stops_with_every_mistake(tmp_path):
    write(tmp_path, DEFINITION.replace("grain:", "grian:"))
    with pytest.raises(UsageError, match=r"municipalities\.yml:\d+"):
        load(tmp_path)


def test_generated_files_are_not_stale():
    wanted = generate.generated_files(ROOT, load(ROOT / "datasets"))
    assert len(wanted) == 5 + 2 * 5
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    assert stale == [], "run `catalunya datasets generate`"


def test_the_dictionary_has_every_table_and_column_of_the_warehouse():
    text = (ROOT / "docs" / "dictionary.md").read_text("utf-8")
    for folder in ("models/marts", "models/intermediate", "seeds"):
        tables = {
            path.stem for kind in ("sql", "csv") for path in (ROOT / "dbt/mart" / folder).glob(f"*.{kind}")
        }
        assert tables
        assert {name for name in tables if f"\n### {name}\n" not in text} == set()
    for column in (
        "accessibility_ratio",
        "postal_code_contradicts",
        "largest_difference_reason",
        "rows_corrected",
    ):
        assert f"| `{column}` | " in text
