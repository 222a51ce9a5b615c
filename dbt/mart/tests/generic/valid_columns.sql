{#
  Rules about single columns of a model, all in one query, since every test is a node and on Athena a query. It returns a
  row per row and rule that it breaks; the column `rule` says which. Nulls break `not_null` only.

    not_null: columns without a null.
    not_negative: columns without a value below zero.
    accepted_values: column to its values.
    accepted_range: column to its least and greatest value, null where there is no bound.
#}
{% test valid_columns(model, not_null=[], not_negative=[], accepted_values={}, accepted_range={}) %}

{%- set rules = [] -%}
{%- set columns = [] -%}
{%- for column in not_null -%}
    {%- do rules.append((column ~ ' is null', column ~ ' is null')) -%}
    {%- do columns.append(column) -%}
{%- endfor -%}
{%- for column in not_negative -%}
    {%- do rules.append((column ~ ' < 0', column ~ ' is negative')) -%}
    {%- do columns.append(column) -%}
{%- endfor -%}
{%- for column, values in accepted_values.items() -%}
    {%- do rules.append((column ~ " not in ('" ~ values | join("', '") ~ "')", column ~ ' is not accepted')) -%}
    {%- do columns.append(column) -%}
{%- endfor -%}
{%- for column, (least, greatest) in accepted_range.items() -%}
    {%- set bounds = [] -%}
    {%- do bounds.append(column ~ ' < ' ~ least) if least is not none -%}
    {%- do bounds.append(column ~ ' > ' ~ greatest) if greatest is not none -%}
    {%- do rules.append((bounds | join(' or '), column ~ ' is out of range')) -%}
    {%- do columns.append(column) -%}
{%- endfor -%}

select
    breaks.rule,
    {{ columns | unique | join(',\n    ') }}
from (
    select
        {{ columns | unique | join(',\n        ') }},
        array[
            {%- for condition, rule in rules %}
            case when {{ condition }} then '{{ rule }}' end{{ ',' if not loop.last }}
            {%- endfor %}
        ] as rules
    from {{ model }}
    where
        {{ rules | map(attribute=0) | join('\n        or ') }}
) as broken
cross join unnest(broken.rules) as breaks (rule)
where breaks.rule is not null

{% endtest %}
