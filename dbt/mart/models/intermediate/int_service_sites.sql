with service_history as (

    select
        service_group,
        municipality_id,
        places,
        is_current
    from {{ ref('service_history') }}

)

select
    municipality_id,
    service_group,
    cast(count(*) as bigint) as services,
    cast(coalesce(sum(places), 0) as bigint) as places
from service_history
where
    is_current
    and service_group <> 'other'
    and municipality_id is not null
group by
    municipality_id,
    service_group
