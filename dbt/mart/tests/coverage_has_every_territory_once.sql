-- Each municipality and comarca that figures are given for, and Catalonia, has one row per year, group and ownership.
with rows_of_category as (

    select
        'municipality' as level,
        year,
        service_group,
        ownership,
        count(*) as territories,
        count(distinct municipality_id) as different_territories
    from {{ ref('coverage_municipality') }}
    group by year, service_group, ownership

    union all

    select
        'comarca' as level,
        year,
        service_group,
        ownership,
        count(*) as territories,
        count(distinct comarca_id) as different_territories
    from {{ ref('coverage_comarca') }}
    group by year, service_group, ownership

    union all

    select
        'catalonia' as level,
        year,
        service_group,
        ownership,
        count(*) as territories,
        1 as different_territories
    from {{ ref('coverage_catalonia') }}
    group by year, service_group, ownership

),

today as (

    select
        'municipality' as level,
        count(*) as territories
    from {{ ref('int_municipality_territories') }}
    where municipality_id = counted_in_id

    union all

    select
        'comarca' as level,
        count(*) as territories
    from {{ ref('dim_comarca') }}

    union all

    select
        'catalonia' as level,
        1 as territories

),

expected as (

    select
        today.level,
        categories.year,
        categories.service_group,
        categories.ownership,
        today.territories
    from today
    cross join {{ ref('int_coverage_categories') }} as categories

)

select
    expected.level,
    expected.year,
    expected.service_group,
    expected.ownership,
    expected.territories as territories_expected,
    rows_of_category.territories as territories_found
from expected
left join rows_of_category
    on
        expected.level = rows_of_category.level
        and expected.year = rows_of_category.year
        and expected.service_group = rows_of_category.service_group
        and expected.ownership = rows_of_category.ownership
where
    rows_of_category.territories is null
    or rows_of_category.territories <> expected.territories
    or rows_of_category.different_territories <> expected.territories
