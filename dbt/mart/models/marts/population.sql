with population as (

    select
        snapshot_id,
        source_snapshot_id,
        municipality_id,
        year,
        name,
        people,
        people_aged_65_over
    from {{ ref('stg_population') }}

),

snapshots as (

    select
        dataset_id,
        snapshot_id,
        snapshot_number
    from {{ ref('int_snapshots') }}

),

published as (

    select
        population.municipality_id,
        population.name,
        population.year,
        population.people,
        population.people_aged_65_over,
        population.source_snapshot_id as snapshot_id,
        snapshots.snapshot_number,
        max(snapshots.snapshot_number) over (partition by population.year) as newest_number
    from population
    inner join snapshots
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
