with services_by_municipality as (

    select
        year,
        municipality_id,
        service_group,
        ownership,
        services,
        places
    from {{ ref('int_services_by_year') }}

),

categories as (

    select
        year,
        basis,
        service_group,
        ownership
    from {{ ref('int_coverage_categories') }}

),

population as (

    select
        level,
        year,
        people_aged_65_over,
        municipalities_without_population,
        people_aged_65_over_complete,
        population_year_latest,
        people_aged_65_over_latest
    from {{ ref('int_population_by_year') }}

),

services as (

    select
        year,
        service_group,
        ownership,
        sum(case when municipality_id is not null then services else 0 end) as services,
        sum(case when municipality_id is not null then places else 0 end) as places,
        sum(case when municipality_id is null then services else 0 end) as services_unmatched,
        sum(case when municipality_id is null then places else 0 end) as places_unmatched
    from services_by_municipality
    group by
        year,
        service_group,
        ownership

),

division as (

    {{ division() }}

),

covered as (

    select
        categories.year,
        categories.service_group,
        categories.ownership,
        categories.basis,
        coalesce(services.services, 0) as services,
        coalesce(services.places, 0) as places,
        coalesce(services.services_unmatched, 0) as services_unmatched,
        coalesce(services.places_unmatched, 0) as places_unmatched,
        division.division_on
    from categories
    cross join division
    left join services
        on
            categories.year = services.year
            and categories.service_group = services.service_group
            and categories.ownership = services.ownership

)

select
    covered.year,
    covered.service_group,
    covered.ownership,
    covered.basis,
    cast(covered.services as bigint) as services,
    cast(covered.places as bigint) as places,
    population.people_aged_65_over,
    {{ per_100('covered.places', 'population.people_aged_65_over_complete') }} as places_per_100_aged_65_over,
    population.population_year_latest,
    population.people_aged_65_over_latest,
    {{ per_100('covered.places', 'population.people_aged_65_over_latest') }} as places_per_100_aged_65_over_latest,
    cast(covered.services_unmatched as bigint) as services_unmatched,
    cast(covered.places_unmatched as bigint) as places_unmatched,
    population.municipalities_without_population,
    covered.division_on
from covered
left join population
    on
        covered.year = population.year
        and population.level = 'catalonia'
