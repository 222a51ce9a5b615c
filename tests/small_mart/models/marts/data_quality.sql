select
    dataset_id,
    snapshot_id,
    snapshot_date,
    cast(rows_in as bigint) as rows_in,
    cast(rows_staged as bigint) as rows_staged,
    cast(rows_quarantined as bigint) as rows_quarantined,
    cast(rows_duplicated as bigint) as rows_duplicated
from {{ source('staging', 'snapshots') }}
