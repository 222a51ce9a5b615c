"""Which typed rows of a snapshot are not staged, and which values become null."""

from __future__ import annotations

import duckdb

from catalunya.datasets.model import Dataset

SOUND = "sound_rows"
"""The view of the typed rows that are staged."""


def find(con: duckdb.DuckDBPyConnection, dataset: Dataset, typed: str) -> dict[str, int]:
    """Create the table `problems` of duplicates, broken rules and keys used twice, and the view `SOUND`.

    The table has the columns n, kind, reason and cause, which is the reason without the values. Which of several rows is
    kept depends on their content, never on their order.

    Args:
        con: where the table and the view are created.
        dataset: the definition of the rows.
        typed: the relation of the typed rows, as `row_sql.typed_query` returns them.

    Returns:
        `rows_in`, `rows_staged`, `rows_quarantined` and `rows_duplicated`.
    """
    columns = [column.name for column in dataset.columns]
    key = " || ' and ' || ".join(f"'{name} = ' || {name}" for name in dataset.key)
    smallest = ", ".join(f"{name} nulls last" for name in columns)
    missing = "case when x.value is null then x.name || ' is missing' else x.name || ': ' ||"
    con.execute("create temp table problems (n bigint, kind varchar, reason varchar, cause varchar)")
    con.execute(
        f"""
        insert into problems
        select n, 'duplicate', null, null from (
            select n, row_number() over (
                partition by content, len(reasons) > 0, {", ".join(columns)} order by len(invalid), n
            ) as place
            from {typed}
            where content in (select content from {typed} group by content having count(*) > 1)
        ) where place > 1
        """
    )
    con.execute(
        f"""
        insert into problems
        select n, 'broken',
            array_to_string(list_transform(
                reasons, lambda x: {missing} chr(34) || x.value || chr(34) || ' ' || x.reason end
            ), '; '),
            array_to_string(list_transform(reasons, lambda x: {missing} '… ' || x.reason end), '; ')
        from {typed}
        where len(reasons) > 0 and n not in (select n from problems)
        """
    )
    con.execute(
        f"""
        insert into problems
        with sound as (select n, identity from {typed} where n not in (select n from problems)),
        repeated as (
            select n from sound
            where identity in (select identity from sound group by identity having count(*) > 1)
        )
        select n, 'key', 'key used twice: another row with ' || {key} || ' was kept', 'key used twice'
        from (
            select n, {", ".join(dataset.key)}, row_number() over (
                partition by {", ".join(dataset.key)} order by len(invalid), {smallest}, n
            ) as place
            from {typed} where n in (select n from repeated)
        ) where place > 1
        """
    )
    row = con.execute(
        f"""
        select (select count(*) from {typed}),
            count(*) filter (kind = 'duplicate'), count(*) filter (kind <> 'duplicate')
        from problems
        """
    ).fetchone()
    assert row is not None
    rows_in, duplicated, quarantined = row
    sound = "where n not in (select n from problems)" if duplicated or quarantined else ""
    con.execute(f"create temp view {SOUND} as select * from {typed} {sound}")
    return {
        "rows_in": rows_in,
        "rows_staged": rows_in - quarantined - duplicated,
        "rows_quarantined": quarantined,
        "rows_duplicated": duplicated,
    }


def reasons(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return the 20 most common causes of quarantine and their rows, the most common first."""
    rows = con.execute(
        """
        select cause, count(*) from problems
        where kind <> 'duplicate' group by 1 order by 2 desc, 1 limit 20
        """
    ).fetchall()
    return {str(cause): int(count) for cause, count in rows}


def invalid_values(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> tuple[dict[str, int], list[str]]:
    """Return the number of staged rows in which an invalid value became null, by column, and a sentence for each."""
    found = con.execute(
        f"""
        select fault.name, fault.reason, count(*), arg_min(fault.value, n), min(n)
        from (select n, unnest(invalid) as fault from {SOUND} where len(invalid) > 0)
        group by all order by count(*) desc, fault.reason
        """
    ).fetchall()
    counts: dict[str, int] = {}
    sentences = []
    for column in dataset.columns:
        rows = [row[1:] for row in found if row[0] == column.name]
        if not rows:
            continue
        counts[column.name] = count = sum(row[1] for row in rows)
        _, example = min((row[3], row[2]) for row in rows)
        reason = " or ".join(reason if count == 1 else _plural(reason) for reason, *_ in rows)
        values, were = ("value", "was") if count == 1 else ("values", "were")
        sentences.append(
            f'{dataset.id}: {count} {values} of {column.name} {reason} and {were} set to null, such as "{example}"'
        )
    return counts, sentences


def _plural(reason: str) -> str:
    return reason.replace("is ", "are ", 1).replace("does ", "do ", 1)
