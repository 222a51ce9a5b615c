with snapshots as (

    select
        snapshot_id,
        snapshot_date,
        row_number() over (order by snapshot_id) as number
    from {{ source('staging', 'snapshots') }}
    where dataset_id = 'social_services'

),

shown as (

    select
        services.service_id,
        snapshots.number,
        lag(snapshots.number) over (partition by services.service_id order by snapshots.number) as number_before,
        lead(snapshots.number) over (partition by services.service_id order by snapshots.number) as number_after
    from {{ ref('stg_social_services') }} as services
    inner join snapshots on services.snapshot_id = snapshots.snapshot_id

),

changes as (

    select
        service_id,
        number,
        case when number_before is null then 'opened' else 'reopened' end as change
    from shown
    where number > 1 and number_before is distinct from number - 1

    union all

    select
        service_id,
        number + 1 as number,
        'closed' as change
    from shown
    where number_after is distinct from number + 1

)

select
    changes.service_id,
    changes.change,
    snapshots.snapshot_date as changed_on,
    snapshots.snapshot_id
from changes
inner join snapshots on changes.number = snapshots.number
