-- One pass over all snapshots: what hundreds of them repeat becomes one row.
select
    services.service_id,
    {{ register_columns('services') }},
    min(snapshots.snapshot_number) as first_number,
    max(snapshots.snapshot_number) as last_number,
    count(*) = max(snapshots.snapshot_number) - min(snapshots.snapshot_number) + 1 as is_unbroken
from {{ corrected('social_services') }} as services
inner join {{ ref('int_snapshots') }} as snapshots
    on
        services.snapshot_id = snapshots.snapshot_id
        and snapshots.dataset_id = 'social_services'
group by
    services.service_id,
    {{ register_columns('services') }}
