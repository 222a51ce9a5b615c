-- Every municipality of the newest list, and each that left it without a known successor, has one row per category.
with municipalities as (

    select count(*) as municipalities
    from {{ ref('int_municipality_territories') }}
    where municipality_id = counted_in_id

),

covered as (

    select
        year,
        service_group,
        ownership,
        count(*) as territories,
        count(distinct municipality_id) as distinct_territories
    from {{ ref('coverage_municipality') }}
    group by
        year,
        service_group,
        ownership

)

select
    covered.year,
    covered.service_group,
    covered.ownership,
    covered.territories,
    municipalities.municipalities
from covered
cross join municipalities
where
    covered.territories <> municipalities.municipalities
    or covered.distinct_territories <> municipalities.municipalities
