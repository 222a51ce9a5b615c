-- Every municipality of the newest list has one row for each year, group and ownership, none doubled, none missing.
with municipalities as (

    select count(*) as municipalities
    from {{ ref('dim_municipality') }}
    where is_current

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
