with comarques as (

    select
        municipality_id,
        comarca_id,
        row_number() over (partition by municipality_id order by snapshot_id desc) as place
    from {{ ref('stg_municipalities') }}

)

select
    population.year,
    comarques.comarca_id,
    cast(sum(population.people_aged_65_over) as bigint) as people_aged_65_over
from {{ ref('population') }} as population
inner join comarques
    on
        population.municipality_id = comarques.municipality_id
        and comarques.place = 1
group by population.year, comarques.comarca_id
