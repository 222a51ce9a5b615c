-- Of two equally near ones the lower code: distance and code make one number, which no two sites share.
with sites as (

    select
        municipality_id,
        service_group
    from {{ ref('int_service_sites') }}

),

distances as (

    select
        municipality_id,
        other_municipality_id,
        distance_m
    from {{ ref('int_municipality_distances') }}

)

select
    distances.municipality_id,
    sites.service_group,
    min(distances.distance_m) as distance_m,
    min_by(
        sites.municipality_id,
        cast(distances.distance_m as bigint) * 1000000 + cast(sites.municipality_id as bigint)
    ) as nearest_municipality_id
from sites
inner join distances on sites.municipality_id = distances.other_municipality_id
group by
    distances.municipality_id,
    sites.service_group
