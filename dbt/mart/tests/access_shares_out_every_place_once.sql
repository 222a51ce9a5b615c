-- The ratios, weighted by people, add up to the located places.
with reached as (

    select
        service_group,
        sum(accessibility_ratio * people_aged_65_over_latest) as places,
        sum(people_aged_65_over_latest) as people,
        count(*) - count(accessibility_ratio) as municipalities_without_ratio
    from {{ ref('access_municipality') }}
    group by service_group

),

located as (

    select
        sites.service_group,
        sum(sites.places) as places
    from {{ ref('int_service_sites') }} as sites
    inner join {{ ref('int_municipality_distances') }} as distances
        on
            sites.municipality_id = distances.municipality_id
            and sites.municipality_id = distances.other_municipality_id
    group by sites.service_group

)

select
    located.service_group,
    located.places as places_located,
    reached.places as places_reached
from located
inner join reached on located.service_group = reached.service_group
where
    reached.municipalities_without_ratio = 0
    -- A ratio has six decimals: its error is at most half a millionth of a place for each person.
    and abs(reached.places - located.places) > 1 + reached.people / cast(1000000 as double)
