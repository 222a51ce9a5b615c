with service_history as (

    select
        service_group,
        municipality_id,
        is_current
    from {{ ref('service_history') }}

),

municipalities as (

    select
        municipality_id,
        latitude,
        longitude,
        is_current
    from {{ ref('dim_municipality') }}

),

population as (

    select
        level,
        territory_id,
        year,
        population_year_latest,
        people_aged_65_over_latest
    from {{ ref('int_population_by_year') }}

),

nearest as (

    select
        municipality_id,
        service_group,
        distance_m,
        nearest_municipality_id
    from {{ ref('int_nearest_services') }}

),

catchments as (

    select
        municipality_id,
        service_group,
        services,
        places,
        places_per_billion
    from {{ ref('int_catchments') }}

),

service_groups as (

    select distinct service_group
    from {{ ref('int_coverage_categories') }}

),

not_located as (

    select
        service_history.service_group,
        count(*) as services
    from service_history
    left join municipalities
        on
            service_history.municipality_id = municipalities.municipality_id
            and municipalities.is_current
            and municipalities.latitude is not null
            and municipalities.longitude is not null
    where
        service_history.is_current
        and municipalities.municipality_id is null
    group by service_history.service_group

),

newest_year as (

    select max(year) as year
    from population

),

people as (

    select
        population.territory_id as municipality_id,
        population.people_aged_65_over_latest,
        population.population_year_latest
    from population
    inner join newest_year on population.year = newest_year.year
    where population.level = 'municipality'

),

register as (

    select snapshot_date as register_on
    from {{ ref('int_snapshots') }}
    where
        dataset_id = 'social_services'
        and is_newest

)

select
    municipalities.municipality_id,
    service_groups.service_group,
    {{ metres_as_km('nearest.distance_m') }} as nearest_km,
    nearest.nearest_municipality_id,
    case
        when municipalities.latitude is null or municipalities.longitude is null then cast(null as double)
        when catchments.municipality_id is null then cast(0 as double)
        else round(cast(catchments.places_per_billion as double) / 1e3) / 1e6
    end as accessibility_ratio,
    case
        when municipalities.latitude is not null and municipalities.longitude is not null
            then coalesce(catchments.services, 0)
    end as services_in_catchment,
    case
        when municipalities.latitude is not null and municipalities.longitude is not null
            then coalesce(catchments.places, 0)
    end as places_in_catchment,
    cast({{ var('access_catchment_km') }} as integer) as catchment_km,
    people.people_aged_65_over_latest,
    people.population_year_latest,
    cast(coalesce(not_located.services, 0) as bigint) as services_not_located,
    register.register_on
from municipalities
cross join service_groups
cross join register
left join nearest
    on
        municipalities.municipality_id = nearest.municipality_id
        and service_groups.service_group = nearest.service_group
left join catchments
    on
        municipalities.municipality_id = catchments.municipality_id
        and service_groups.service_group = catchments.service_group
left join people on municipalities.municipality_id = people.municipality_id
left join not_located on service_groups.service_group = not_located.service_group
where municipalities.is_current
