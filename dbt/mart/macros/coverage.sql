{#
  Dense coverage of the territories of one level: every territory, year, service group and ownership has one row, from
  the categories alone, so that a join can only fill it and never multiply it. `territory_id` is the column of
  `int_municipality_territories` that names the territory.
#}
{% macro coverage(level, territory_id) -%}
with territories as (

    select distinct {{ territory_id }}
    from {{ ref('int_municipality_territories') }}
    where
        municipality_id = counted_in_id
        and {{ territory_id }} is not null

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
        territory_id,
        year,
        people_aged_65_over,
        municipalities_without_population,
        people_aged_65_over_complete,
        population_year_latest,
        people_aged_65_over_latest
    from {{ ref('int_population_by_year') }}
    where level = '{{ level }}'

),

services as (

    select
        {{ territory_id }},
        year,
        service_group,
        ownership,
        sum(services) as services,
        sum(places) as places
    from {{ ref('int_services_by_year') }}
    where {{ territory_id }} is not null
    group by
        {{ territory_id }},
        year,
        service_group,
        ownership

),

division as (

    {{ division() }}

),

covered as (

    select
        territories.{{ territory_id }},
        categories.year,
        categories.service_group,
        categories.ownership,
        categories.basis,
        coalesce(services.services, 0) as services,
        coalesce(services.places, 0) as places,
        division.division_on
    from territories
    cross join categories
    cross join division
    left join services
        on
            territories.{{ territory_id }} = services.{{ territory_id }}
            and categories.year = services.year
            and categories.service_group = services.service_group
            and categories.ownership = services.ownership

)

select
    covered.{{ territory_id }},
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
    {%- if level != 'municipality' %}
    population.municipalities_without_population,
    {%- endif %}
    covered.division_on
from covered
left join population
    on
        covered.{{ territory_id }} = population.territory_id
        and covered.year = population.year
{%- endmacro %}


{#
  Day of the municipality list whose division into comarques all figures are on: the publisher's date of the newest
  list, or the day on which it was read where the publisher gives none.
#}
{% macro division() -%}
select coalesce(source_updated_on, snapshot_date) as division_on
    from {{ ref('int_snapshots') }}
    where
        dataset_id = 'municipalities'
        and is_newest
{%- endmacro %}
