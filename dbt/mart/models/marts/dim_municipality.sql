with municipalities as (

    select
        snapshot_id,
        municipality_id,
        name,
        comarca_id,
        comarca_name,
        longitude,
        latitude
    from {{ ref('stg_municipalities') }}

),

snapshots as (

    select
        dataset_id,
        snapshot_id,
        snapshot_date,
        snapshot_number,
        next_snapshot_date
    from {{ ref('int_snapshots') }}

),

listed as (

    select
        municipalities.municipality_id,
        municipalities.name,
        municipalities.comarca_id,
        municipalities.comarca_name,
        municipalities.latitude,
        municipalities.longitude,
        snapshots.snapshot_number
    from municipalities
    inner join snapshots
        on
            municipalities.snapshot_id = snapshots.snapshot_id
            and snapshots.dataset_id = 'municipalities'

),

states as (

    select
        municipality_id,
        snapshot_number as first_number,
        snapshot_number as last_number,
        {{ state_hash(['name', 'comarca_id']) }} as state_hash
    from listed

),

periods as (

    {{ islands('states', 'municipality_id') }}

)

select
    periods.municipality_id,
    listed.name,
    {{ article_in_front('listed.name') }} as display_name,
    listed.comarca_id,
    listed.comarca_name,
    listed.latitude,
    listed.longitude,
    first_snapshots.snapshot_date as valid_from,
    last_snapshots.next_snapshot_date as valid_to,
    last_snapshots.next_snapshot_date is null as is_current
from periods
inner join listed
    on
        periods.municipality_id = listed.municipality_id
        and periods.last_number = listed.snapshot_number
inner join snapshots as first_snapshots
    on
        periods.first_number = first_snapshots.snapshot_number
        and first_snapshots.dataset_id = 'municipalities'
inner join snapshots as last_snapshots
    on
        periods.last_number = last_snapshots.snapshot_number
        and last_snapshots.dataset_id = 'municipalities'
