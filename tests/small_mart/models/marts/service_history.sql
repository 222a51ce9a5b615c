with services as (

    select
        service_id,
        name,
        service_type,
        places,
        min(snapshot_id) as first_snapshot_id,
        max(snapshot_id) as last_snapshot_id
    from {{ ref('stg_social_services') }}
    group by service_id, name, service_type, places

)

select
    *,
    last_snapshot_id = max(last_snapshot_id) over () as is_current
from services
