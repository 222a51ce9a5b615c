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
