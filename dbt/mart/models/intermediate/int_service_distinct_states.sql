-- One pass over all snapshots: equal rows of hundreds of snapshots become one.
select
    services.service_id,
    {{ register_columns('services') }},
    min(snapshots.snapshot_number) as first_number,
    max(snapshots.snapshot_number) as last_number,
    count(*) = max(snapshots.snapshot_number) - min(snapshots.snapshot_number) + 1 as is_contiguous
from {{ ref('stg_social_services') }} as services
inner join {{ ref('int_snapshots') }} as snapshots
    on
        services.snapshot_id = snapshots.snapshot_id
        and snapshots.dataset_id = 'social_services'
group by
    services.service_id,
    {{ register_columns('services') }}
