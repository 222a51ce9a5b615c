with population as (

    select
        municipality_id,
        year,
        people_aged_65_over
    from {{ ref('population') }}

),

municipalities as (

    select
        municipality_id,
        counted_in_id,
        comarca_id,
        is_current,
        abolished_on,
        left_on
    from {{ ref('int_municipality_territories') }}

),

years as (

    select year
    from {{ ref('int_years') }}

),

published as (

    select
        municipality_id,
        max(year) as last_year
    from population
    where people_aged_65_over is not null
    group by municipality_id

),

municipality_years as (

    select
        municipalities.counted_in_id,
        municipalities.comarca_id,
        years.year,
        population.people_aged_65_over,
        case
            when municipalities.is_current then true
            when municipalities.abolished_on is not null
                then
                    published.last_year is not null
                    and cast(cast(years.year as varchar) || '-01-01' as date) < municipalities.abolished_on
            when published.last_year is not null then years.year <= published.last_year
            else coalesce(cast(cast(years.year as varchar) || '-01-01' as date) < municipalities.left_on, false)
        end as is_expected
    from municipalities
    cross join years
    left join published on municipalities.municipality_id = published.municipality_id
    left join population
        on
            municipalities.municipality_id = population.municipality_id
            and years.year = population.year

),

territories as (

    select
        'municipality' as level,
        counted_in_id as territory_id,
        year,
        people_aged_65_over,
        is_expected
    from municipality_years

    union all

    select
        'comarca' as level,
        comarca_id as territory_id,
        year,
        people_aged_65_over,
        is_expected
    from municipality_years
    where comarca_id is not null

    union all

    select
        'catalonia' as level,
        'catalonia' as territory_id,
        year,
        people_aged_65_over,
        is_expected
    from municipality_years

),

territory_years as (

    select
        level,
        territory_id,
        year,
        cast(sum(people_aged_65_over) as bigint) as people_aged_65_over,
        cast(sum(case when is_expected and people_aged_65_over is null then 1 else 0 end) as bigint)
            as municipalities_without_population
    from territories
    group by
        level,
        territory_id,
        year

),

completed as (

    select
        level,
        territory_id,
        year,
        people_aged_65_over,
        municipalities_without_population,
        case when municipalities_without_population = 0 then people_aged_65_over end
            as people_aged_65_over_complete
    from territory_years

),

carried as (

    select
        level,
        territory_id,
        year,
        people_aged_65_over,
        municipalities_without_population,
        people_aged_65_over_complete,
        max(case when people_aged_65_over_complete is not null then year end) over (
            partition by level, territory_id
            order by year
            rows between unbounded preceding and current row
        ) as population_year_latest
    from completed

)

select
    carried.level,
    carried.territory_id,
    carried.year,
    carried.people_aged_65_over,
    carried.municipalities_without_population,
    carried.people_aged_65_over_complete,
    carried.population_year_latest,
    latest.people_aged_65_over_complete as people_aged_65_over_latest
from carried
left join completed as latest
    on
        carried.level = latest.level
        and carried.territory_id = latest.territory_id
        and carried.population_year_latest = latest.year
