-- The population of a year sums to what its source publishes for Catalonia.
{{ config(severity='warn') }}

with published as (

    select
        controls.control,
        controls.period,
        controls.snapshot_id,
        controls.published
    from {{ source('staging', 'controls') }} as controls
    where controls.dataset_id = 'population'

),

summed as (

    select
        'people' as control,
        cast(year as varchar) as period,
        max(snapshot_id) as snapshot_id,
        sum(people) as computed
    from {{ ref('population') }}
    group by year

    union all

    select
        'people_aged_65_over' as control,
        cast(year as varchar) as period,
        max(snapshot_id) as snapshot_id,
        sum(people_aged_65_over) as computed
    from {{ ref('population') }}
    group by year

)

select
    published.control,
    published.period,
    published.snapshot_id,
    published.published,
    summed.computed
from published
inner join summed
    on
        published.control = summed.control
        and published.period = summed.period
        and published.snapshot_id = summed.snapshot_id
where published.published <> summed.computed
