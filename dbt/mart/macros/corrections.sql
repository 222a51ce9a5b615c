{# Key of a row of a dataset in one text, as the seed `source_corrections` writes it. #}
{% macro row_key(dataset_id, relation) -%}
    {%- set parts = [] -%}
    {%- for column in declared_datasets()[dataset_id]['key'] -%}
        {%- do parts.append("cast(" ~ relation ~ "." ~ column ~ " as varchar)") -%}
    {%- endfor -%}
    {{ parts | join(" || '/' || ") }}
{%- endmacro %}


{#
  The rows of a dataset that replace quarantined ones, as a relation: where a snapshot has a key in quarantine and does
  not stage it, the row of the last earlier snapshot that stages the key. A key that no earlier snapshot stages has none.
  Columns: those of the dataset, `row_key`, `snapshot_id` (the snapshot with the quarantined row) and
  `source_snapshot_id` (the snapshot that staged the row).

  Only rows with a key that is in quarantine are read.
#}
{% macro carried_forward(dataset_id) -%}
    {%- set declared = declared_datasets()[dataset_id] -%}
    {%- set names = declared['key'] + declared['columns'].keys() | list -%}
    (
        select
            known.row_key,
            quarantined.snapshot_id,
            known.snapshot_id as source_snapshot_id
            {%- for column in names %},
            known.{{ column }}
            {%- endfor %}
        from (
            select
                staged.snapshot_id,
                lead(staged.snapshot_id) over (partition by wanted.row_key order by staged.snapshot_id) as next_snapshot_id,
                wanted.row_key
                {%- for column in names %},
                staged.{{ column }}
                {%- endfor %}
            from {{ source('staging', dataset_id) }} as staged
            inner join (
                select distinct row_key
                from {{ source('staging', 'quarantined') }}
                where dataset_id = '{{ dataset_id }}'
            ) as wanted
                on {{ row_key(dataset_id, 'staged') }} = wanted.row_key
        ) as known
        inner join {{ source('staging', 'quarantined') }} as quarantined
            on
                quarantined.dataset_id = '{{ dataset_id }}'
                and known.row_key = quarantined.row_key
                and known.snapshot_id < quarantined.snapshot_id
                and (known.next_snapshot_id is null or quarantined.snapshot_id < known.next_snapshot_id)
    )
{%- endmacro %}


{#
  The query of the view `stg_<dataset>`: the rows that a dataset has in each snapshot. These are its staged rows, the
  earlier rows that replace quarantined ones (`carried_forward`), and in both the corrections of known errors.
  `source_snapshot_id` is the snapshot that staged the row; it differs from `snapshot_id` in rows carried forward.

  It reads the seed, the quarantined keys and its own source alone: the audit must not blame a snapshot of one dataset for
  a fault of another. Where nothing is quarantined and nothing is corrected the joins are with empty tables.
#}
{% macro staged_rows(dataset_id) -%}
    {%- set columns = declared_datasets()[dataset_id]['columns'] -%}
    {%- set key = declared_datasets()[dataset_id]['key'] -%}
select
    present.snapshot_id,
    present.source_snapshot_id
    {%- for column in key %},
    present.{{ column }}
    {%- endfor %}
    {%- for column, type in columns.items() %},
    case
        when
            corrections.corrects_{{ column }}
            and {{ text_of('present.' ~ column) }} = corrections.wrong_{{ column }}
            then cast(corrections.right_{{ column }} as {{ type }})
        else present.{{ column }}
    end as {{ column }}
    {%- endfor %}
from (
    select
        staged.snapshot_id,
        staged.snapshot_id as source_snapshot_id
        {%- for column in key + columns.keys() | list %},
        staged.{{ column }}
        {%- endfor %}
    from {{ source('staging', dataset_id) }} as staged

    union all

    select
        carried.snapshot_id,
        carried.source_snapshot_id
        {%- for column in key + columns.keys() | list %},
        carried.{{ column }}
        {%- endfor %}
    from {{ carried_forward(dataset_id) }} as carried
) as present
left join (
    select
        row_key
        {%- for column in columns %},
        max(case when column_name = '{{ column }}' then coalesce(wrong_value, '') end) as wrong_{{ column }},
        max(case when column_name = '{{ column }}' then right_value end) as right_{{ column }},
        max(case when column_name = '{{ column }}' then 1 else 0 end) = 1 as corrects_{{ column }}
        {%- endfor %}
    from {{ ref('source_corrections') }}
    where dataset_id = '{{ dataset_id }}'
    group by row_key
) as corrections
    on {{ row_key(dataset_id, 'present') }} = corrections.row_key
{%- endmacro %}


{# A value as the seed writes it: empty where there is none. #}
{% macro text_of(value) -%}
    coalesce(cast({{ value }} as varchar), '')
{%- endmacro %}


{# Every correction that applies, in every snapshot of every dataset. #}
{% macro applied_corrections() -%}
{%- for dataset_id, declared in declared_datasets().items() %}
select
    corrections.dataset_id,
    staged.snapshot_id,
    corrections.row_key,
    corrections.column_name,
    corrections.right_value
from {{ source('staging', dataset_id) }} as staged
inner join {{ ref('source_corrections') }} as corrections
    on
        corrections.dataset_id = '{{ dataset_id }}'
        and {{ row_key(dataset_id, 'staged') }} = corrections.row_key
where
    case corrections.column_name
        {%- for column in declared['columns'] %}
        when '{{ column }}' then {{ text_of('staged.' ~ column) }}
        {%- endfor %}
    end = coalesce(corrections.wrong_value, '')
{%- if not loop.last %}

union all
{% endif %}
{%- endfor %}
{%- endmacro %}


{# Every row that replaces a quarantined one, in every snapshot of every dataset. #}
{% macro carried_rows() -%}
{%- for dataset_id in declared_datasets() %}
select
    '{{ dataset_id }}' as dataset_id,
    carried.snapshot_id,
    carried.row_key,
    carried.source_snapshot_id
from {{ carried_forward(dataset_id) }} as carried
{%- if not loop.last %}

union all
{% endif %}
{%- endfor %}
{%- endmacro %}
