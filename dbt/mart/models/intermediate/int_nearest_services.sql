-- Of two equally near ones the lower code: distance and code make one number, which no two sites share.
select
    distances.municipality_id,
    sites.service_group,
    min(distances.distance_m) as distance_m,
    min_by(
        sites.municipality_id,
        cast(distances.distance_m as bigint) * 1000000 + cast(sites.municipality_id as bigint)
    ) as nearest_municipality_id
from {{ ref('int_service_sites') }} as sites
inner join {{ ref('int_municipality_distances') }} as distances
    on sites.municipality_id = distances.other_municipality_id
group by
    distances.municipality_id,
    sites.service_group
