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
  no correction it costs next to nothing.
#}
{% macro corrected(dataset_id) -%}
    {%- set rows = source('staging', dataset_id) -%}
    {%- set corrections = ref('int_corrections') -%}
    {%- set columns = declared_datasets()[dataset_id]['columns'] -%}
    (
        select
            uncorrected.snapshot_id,
            uncorrected.snapshot_date
            {%- for column in declared_datasets()[dataset_id]['key'] %},
            uncorrected.{{ column }}
            {%- endfor %}
            {%- for column, type in columns.items() %},
            case
                when corrections.{{ column }}_is_wrong then cast(corrections.{{ column }} as {{ type }})
                else uncorrected.{{ column }}
            end as {{ column }}
            {%- endfor %}
        from {{ rows }} as uncorrected
        left join (
            select
                snapshot_id,
                row_key
                {%- for column in columns %},
                max(case when column_name = '{{ column }}' then right_value end) as {{ column }},
                max(case when column_name = '{{ column }}' then 1 else 0 end) = 1 as {{ column }}_is_wrong
                {%- endfor %}
            from {{ corrections }}
            where dataset_id = '{{ dataset_id }}'
            group by
                snapshot_id,
                row_key
        ) as corrections
            on
                uncorrected.snapshot_id = corrections.snapshot_id
                and {{ row_key(dataset_id, 'uncorrected') }} = corrections.row_key
    )
{%- endmacro %}
