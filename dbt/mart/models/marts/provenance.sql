-- Each rule names the snapshots that a value of a column stands for; `*` is the value of a rule that needs no column.
with declared (mart, dataset_id, role, rule, column_name) as (

    values
    {{ declared_provenance() }}

),

accepted as (

    select
        dataset_id,
        snapshot_id
    from {{ ref('data_quality') }}

),

snapshots as (

    select
        dataset_id,
        snapshot_id,
        snapshot_date,
        next_snapshot_date,
        snapshot_number,
        is_newest
    from {{ ref('int_snapshots') }}

),

years as (

    select
        year,
        basis,
        reference_date
    from {{ ref('int_years') }}

),

population as (

    select distinct
        year,
        snapshot_id
    from {{ ref('population') }}

),

latest_years as (

    select distinct population_year_latest as year
    from {{ ref('access_municipality') }}

),

rules as (

    select
        dataset_id,
        'snapshot' as rule,
        snapshot_id as value,
        snapshot_id
    from accepted

    union all

    select
        dataset_id,
        'day' as rule,
        cast(snapshot_date as varchar) as value,
        snapshot_id
    from snapshots

    union all

    select
        dataset_id,
        'before_day' as rule,
        cast(next_snapshot_date as varchar) as value,
        snapshot_id
    from snapshots
    where next_snapshot_date is not null

    union all

    select
        dataset_id,
        'all' as rule,
        '*' as value,
        snapshot_id
    from snapshots

    union all

    select
        dataset_id,
        case when is_newest then 'newest' else 'earlier' end as rule,
        '*' as value,
        snapshot_id
    from snapshots

    union all

    select
        dataset_id,
        'newest_if' as rule,
        'true' as value,
        snapshot_id
    from snapshots
    where is_newest

    union all

    -- An inscription year is computed from the first snapshot of the register.
    select
        snapshots.dataset_id,
        'year' as rule,
        cast(years.year as varchar) as value,
        snapshots.snapshot_id
    from years
    inner join snapshots
        on
            (years.basis = 'inscription' and snapshots.snapshot_number = 1)
            or (
                years.basis = 'observed'
                and years.reference_date >= snapshots.snapshot_date
                and (snapshots.next_snapshot_date is null or years.reference_date < snapshots.next_snapshot_date)
            )
    where snapshots.dataset_id = 'social_services'

    union all

    select
        'population' as dataset_id,
        'year' as rule,
        cast(year as varchar) as value,
        snapshot_id
    from population

    union all

    select
        'population' as dataset_id,
        'latest_years' as rule,
        '*' as value,
        population.snapshot_id
    from population
    inner join latest_years on population.year = latest_years.year

)

select distinct
    cast(declared.mart as varchar) as mart,
    cast(rules.dataset_id as varchar) as dataset_id,
    cast(declared.role as varchar) as role,
    cast(declared.column_name as varchar) as column_name,
    cast(rules.value as varchar) as value,
    cast(rules.snapshot_id as varchar) as snapshot_id
from declared
inner join rules
    on
        declared.rule = rules.rule
        and declared.dataset_id in (rules.dataset_id, '*')
