{# Key of a row of a dataset in one text, as the seed `source_corrections` writes it. #}
{% macro row_key(dataset_id, relation) -%}
    {%- set parts = [] -%}
    {%- for column in declared_datasets()[dataset_id]['key'] -%}
        {%- do parts.append("cast(" ~ relation ~ "." ~ column ~ " as varchar)") -%}
    {%- endfor -%}
    {{ parts | join(" || '/' || ") }}
{%- endmacro %}


{#
  The staged rows of a dataset with the corrections of its known errors, as a relation to select from. Where there is
  no correction it costs next to nothing. It reads the seed and its own source alone, so that a bad snapshot of
  another dataset is never blamed for what this one does.
#}
{% macro corrected(dataset_id) -%}
    {%- set columns = declared_datasets()[dataset_id]['columns'] -%}
    (
        select
            staged.snapshot_id,
            staged.snapshot_date
            {%- for column in declared_datasets()[dataset_id]['key'] %},
            staged.{{ column }}
            {%- endfor %}
            {%- for column, type in columns.items() %},
            case
                when
                    corrections.corrects_{{ column }}
                    and {{ text_of('staged.' ~ column) }} = corrections.wrong_{{ column }}
                    then cast(corrections.right_{{ column }} as {{ type }})
                else staged.{{ column }}
            end as {{ column }}
            {%- endfor %}
        from {{ source('staging', dataset_id) }} as staged
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
            on {{ row_key(dataset_id, 'staged') }} = corrections.row_key
    )
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
