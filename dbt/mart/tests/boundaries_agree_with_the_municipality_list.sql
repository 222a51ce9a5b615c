-- The newest boundaries file puts every municipality in the comarca of the newest municipality list.
{{ config(severity='warn') }}

select
    snapshot_id,
    rows_unmatched
from {{ ref('data_quality') }}
where
    dataset_id = 'boundaries'
    and is_newest
    and rows_unmatched > 0
