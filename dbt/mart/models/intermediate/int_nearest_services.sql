with ranked as (

    select
        distances.municipality_id,
        sites.service_group,
        distances.distance_m,
        sites.municipality_id as nearest_municipality_id,
        row_number() over (
            partition by distances.municipality_id, sites.service_group
            order by distances.distance_m, sites.municipality_id
        ) as place
    from {{ ref('int_service_sites') }} as sites
    inner join {{ ref('int_municipality_distances') }} as distances
        on sites.municipality_id = distances.other_municipality_id

)

select
    municipality_id,
    service_group,
    distance_m,
    nearest_municipality_id
from ranked
where place = 1
