-- Every row that came in was staged, quarantined or a duplicate, and earlier rows stand in for quarantined ones alone.
select
    dataset_id,
    snapshot_id,
    rows_in,
    rows_staged,
    rows_quarantined,
    rows_duplicated,
    rows_carried_forward
from {{ ref('data_quality') }}
where
    rows_in <> rows_staged + rows_quarantined + rows_duplicated
    or rows_carried_forward > rows_quarantined
