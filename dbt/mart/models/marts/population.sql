with published as (

    select
        population.municipality_id,
        population.name,
        population.year,
        population.people,
        population.people_aged_65_over,
        population.source_snapshot_id as snapshot_id,
        snapshots.snapshot_number,
        max(snapshots.snapshot_number) over (partition by population.year) as newest_number
    from {{ ref('stg_population') }} as population
    inner join {{ ref('int_snapshots') }} as snapshots
        on
            population.snapshot_id = snapshots.snapshot_id
            and snapshots.dataset_id = 'population'

)

select
    municipality_id,
    year,
    name,
    people,
    people_aged_65_over,
    snapshot_id
from published
where snapshot_number = newest_number
