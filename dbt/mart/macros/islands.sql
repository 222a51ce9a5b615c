{#
  Gaps and islands: the longest series of snapshots without a gap in which a key has one state. `relation` has one row per
  key and series of snapshots: the key columns, `first_number` and `last_number` (snapshot numbers, both included) and
  `state_hash`. Series that follow each other without a gap and with the same hash become one. One pass over the rows, so
  that the cost does not grow with the number of equal snapshots.
#}
{% macro islands(relation, key) -%}
    select
        {{ key }},
        first_number,
        last_number
    from (
        select
            {{ key }},
            first_number,
            is_first,
            case
                when is_last then last_number
                else lead(last_number) over (partition by {{ key }} order by first_number)
            end as last_number
        from (
            select
                {{ key }},
                first_number,
                last_number,
                not coalesce(
                    lag(state_hash) over (partition by {{ key }} order by first_number) = state_hash
                    and lag(last_number) over (partition by {{ key }} order by first_number) = first_number - 1,
                    false
                ) as is_first,
                not coalesce(
                    lead(state_hash) over (partition by {{ key }} order by first_number) = state_hash
                    and lead(first_number) over (partition by {{ key }} order by first_number) = last_number + 1,
                    false
                ) as is_last
            from {{ relation }}
        ) as bounds
        where is_first or is_last
    ) as ends
    where is_first
{%- endmacro %}
