-- Both steps of the floating catchment area. Ratios are whole billionths, so that their sum has no order.
with population as (

    select
        level,
        territory_id,
        year,
        people_aged_65_over_latest
    from {{ ref('int_population_by_year') }}

),

sites as (

    select
        municipality_id,
        service_group,
        services,
        places
    from {{ ref('int_service_sites') }}

),

within_reach as (

    select
        municipality_id,
        other_municipality_id
    from {{ ref('int_municipality_distances') }}
    where distance_m <= {{ var('access_catchment_km') }} * 1000

),

newest_year as (

    select max(year) as year
    from population

),

people as (

    select
        population.territory_id as municipality_id,
        population.people_aged_65_over_latest as people_aged_65_over
    from population
    inner join newest_year on population.year = newest_year.year
    where population.level = 'municipality'

),

people_of_sites as (

    select
        within_reach.other_municipality_id as municipality_id,
        sum(people.people_aged_65_over) as people_aged_65_over
    from within_reach
    inner join people on within_reach.municipality_id = people.municipality_id
    group by within_reach.other_municipality_id

),

site_ratios as (

    select
        sites.municipality_id,
        sites.service_group,
        sites.services,
        sites.places,
        case
            when people_of_sites.people_aged_65_over > 0
                then cast(round(sites.places * 1e9 / people_of_sites.people_aged_65_over) as bigint)
        end as places_per_billion
    from sites
    left join people_of_sites on sites.municipality_id = people_of_sites.municipality_id

)

select
    within_reach.municipality_id,
    site_ratios.service_group,
    cast(sum(site_ratios.services) as bigint) as services,
    cast(sum(site_ratios.places) as bigint) as places,
    case
        when count(*) = count(site_ratios.places_per_billion)
            then cast(sum(site_ratios.places_per_billion) as bigint)
    end as places_per_billion
from site_ratios
inner join within_reach on site_ratios.municipality_id = within_reach.other_municipality_id
group by
    within_reach.municipality_id,
    site_ratios.service_group
