with municipalities as (

    select
        municipality_id,
        comarca_id
    from {{ ref('dim_municipality') }}
    where is_current

),

municipality_years as (

    select
        municipalities.municipality_id,
        municipalities.comarca_id,
        years.year,
        population.people_aged_65_over
    from municipalities
    cross join {{ ref('int_years') }} as years
    left join {{ ref('population') }} as population
        on
            municipalities.municipality_id = population.municipality_id
            and years.year = population.year

),

territories as (

    select
        'municipality' as level,
        municipality_id as territory_id,
        year,
        people_aged_65_over
    from municipality_years

    union all

    select
        'comarca' as level,
        comarca_id as territory_id,
        year,
        people_aged_65_over
    from municipality_years
    where comarca_id is not null

    union all

    select
        'catalonia' as level,
        'catalonia' as territory_id,
        year,
        people_aged_65_over
    from municipality_years

),

territory_years as (

    select
        level,
        territory_id,
        year,
        cast(sum(people_aged_65_over) as bigint) as people_aged_65_over,
        count(*) - count(people_aged_65_over) as municipalities_without_population
    from territories
    group by
        level,
        territory_id,
        year

),

carried as (

    select
        level,
        territory_id,
        year,
        people_aged_65_over,
        municipalities_without_population,
        max(case when people_aged_65_over is not null then year end) over (
            partition by level, territory_id
            order by year
            rows between unbounded preceding and current row
        ) as population_year_latest
    from territory_years

)

select
    carried.level,
    carried.territory_id,
    carried.year,
    carried.people_aged_65_over,
    carried.municipalities_without_population,
    carried.population_year_latest,
    latest.people_aged_65_over as people_aged_65_over_latest
from carried
left join territory_years as latest
    on
        carried.level = latest.level
        and carried.territory_id = latest.territory_id
        and carried.population_year_latest = latest.year
