with snapshots as (

    select
        dataset_id,
        snapshot_id,
        snapshot_date,
        source_updated_on
    from {{ source('staging', 'snapshots') }}

),

ranked as (

    select
        dataset_id,
        snapshot_id,
        snapshot_date,
        source_updated_on,
        row_number() over (partition by dataset_id, snapshot_date order by snapshot_id desc) as place_of_day
    from snapshots

)

select
    dataset_id,
    snapshot_id,
    snapshot_date,
    source_updated_on,
    row_number() over (partition by dataset_id order by snapshot_date) as snapshot_number,
    lead(snapshot_date) over (partition by dataset_id order by snapshot_date) as next_snapshot_date,
    lead(snapshot_date) over (partition by dataset_id order by snapshot_date) is null as is_newest
from ranked
where place_of_day = 1
