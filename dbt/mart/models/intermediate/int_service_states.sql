with snapshots as (

    select
        snapshot_id,
        snapshot_number
    from {{ ref('int_snapshots') }}
    where dataset_id = 'social_services'

),

registered as (

    select
        services.service_id,
        snapshots.snapshot_number as first_number,
        snapshots.snapshot_number as last_number,
        {{ state_hash([
            'services.name', 'services.service_type', 'services.registered_on', 'services.places',
            'services.address', 'services.district', 'services.postal_code', 'services.municipality_name',
            'services.comarca_name', 'services.owner_name', 'services.ownership_name',
        ]) }} as state_hash
    from {{ source('staging', 'social_services') }} as services
    inner join snapshots on services.snapshot_id = snapshots.snapshot_id

),

runs as (

    {{ unbroken_runs('registered', 'service_id') }}

),

located_runs as (

    select
        runs.service_id,
        runs.first_number,
        runs.last_number,
        snapshots.snapshot_id
    from runs
    inner join snapshots on runs.first_number = snapshots.snapshot_number

)

select
    located_runs.service_id,
    located_runs.first_number,
    located_runs.last_number,
    services.name,
    services.service_type,
    services.registered_on,
    services.places,
    services.address,
    services.district,
    services.postal_code,
    services.municipality_name,
    services.comarca_name,
    services.owner_name,
    services.ownership_name
from located_runs
inner join {{ source('staging', 'social_services') }} as services
    on
        located_runs.service_id = services.service_id
        and located_runs.snapshot_id = services.snapshot_id
