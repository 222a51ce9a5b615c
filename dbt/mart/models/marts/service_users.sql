select
    users.comarca_id,
    users.year,
    users.comarca_name,
    users.women_in_day_centres,
    users.men_in_day_centres,
    users.people_in_day_centres,
    users.women_in_residences,
    users.men_in_residences,
    users.people_in_residences,
    users.women,
    users.men,
    users.people,
    users.source_snapshot_id as snapshot_id
from {{ ref('stg_service_users') }} as users
inner join {{ ref('int_snapshots') }} as snapshots
    on
        users.snapshot_id = snapshots.snapshot_id
        and snapshots.dataset_id = 'service_users'
        and snapshots.is_newest
