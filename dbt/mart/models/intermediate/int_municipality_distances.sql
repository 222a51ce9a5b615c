with centres as (

    select
        municipality_id,
        {{ as_radians('latitude') }} as latitude,
        {{ as_radians('longitude') }} as longitude
    from {{ ref('dim_municipality') }}
    where
        is_current
        and latitude is not null
        and longitude is not null

),

reached as (

    select distinct municipality_id
    from {{ ref('int_service_sites') }}

)

select
    origins.municipality_id,
    destinations.municipality_id as other_municipality_id,
    {{ haversine_m('origins.latitude', 'origins.longitude', 'destinations.latitude', 'destinations.longitude') }}
        as distance_m
from centres as origins
cross join centres as destinations
inner join reached on destinations.municipality_id = reached.municipality_id
