-- Every row that came in was staged, quarantined or a duplicate.
select
    dataset_id,
    snapshot_id,
    rows_in,
    rows_staged,
    rows_quarantined,
    rows_duplicated
from {{ ref('data_quality') }}
where rows_in <> rows_staged + rows_quarantined + rows_duplicated
