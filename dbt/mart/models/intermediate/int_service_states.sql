-- Only services that left a state and came back to it are read snapshot by snapshot.
with distinct_states as (

    select
        states.service_id,
        {{ register_columns('states') }},
        states.first_number,
        states.last_number,
        states.is_contiguous
    from {{ ref('int_service_distinct_states') }} as states

),

services as (

    select
        services.snapshot_id,
        services.service_id,
        {{ register_columns('services') }}
    from {{ ref('stg_social_services') }} as services

),

snapshots as (

    select
        snapshot_id,
        snapshot_number
    from {{ ref('int_snapshots') }}
    where dataset_id = 'social_services'

),

interrupted as (

    select distinct service_id
    from distinct_states
    where not is_contiguous

),

state_series as (

    select
        distinct_states.service_id,
        {{ register_columns('distinct_states') }},
        distinct_states.first_number,
        distinct_states.last_number
    from distinct_states
    left join interrupted on distinct_states.service_id = interrupted.service_id
    where interrupted.service_id is null

    union all

    select
        services.service_id,
        {{ register_columns('services') }},
        snapshots.snapshot_number as first_number,
        snapshots.snapshot_number as last_number
    from services
    inner join interrupted on services.service_id = interrupted.service_id
    inner join snapshots on services.snapshot_id = snapshots.snapshot_id

),

hashed as (

    select
        service_id,
        first_number,
        last_number,
        {{ state_hash(register_column_names()) }} as state_hash
    from state_series

),

islands as (

    {{ islands('hashed', 'service_id') }}

)

select
    islands.service_id,
    islands.first_number,
    islands.last_number,
    {{ register_columns('state_series') }}
from islands
inner join state_series
    on
        islands.service_id = state_series.service_id
        and islands.first_number = state_series.first_number
