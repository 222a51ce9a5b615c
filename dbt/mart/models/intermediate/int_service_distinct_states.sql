-- One pass over all snapshots: equal rows of hundreds of snapshots become one.
with services as (

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

)

select
    services.service_id,
    {{ register_columns('services') }},
    min(snapshots.snapshot_number) as first_number,
    max(snapshots.snapshot_number) as last_number,
    count(*) = max(snapshots.snapshot_number) - min(snapshots.snapshot_number) + 1 as is_contiguous
from services
inner join snapshots on services.snapshot_id = snapshots.snapshot_id
group by
    services.service_id,
    {{ register_columns('services') }}
