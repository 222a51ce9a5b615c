-- Every correction of a known error is still needed: the newest snapshot of its dataset says the wrong value.
{{ config(severity='warn') }}

select
    corrections.dataset_id,
    corrections.row_key,
    corrections.column_name,
    corrections.wrong_value,
    corrections.reason
from {{ ref('source_corrections') }} as corrections
left join {{ ref('int_snapshots') }} as newest
    on
        corrections.dataset_id = newest.dataset_id
        and newest.is_newest
left join {{ ref('int_corrections') }} as applied
    on
        newest.dataset_id = applied.dataset_id
        and newest.snapshot_id = applied.snapshot_id
        and corrections.row_key = applied.row_key
        and corrections.column_name = applied.column_name
where applied.row_key is null
