with places as (

    select
        snapshot_id,
        municipality_name,
        comarca_name,
        count(*) as services
    from {{ source('staging', 'social_services') }}
    group by
        snapshot_id,
        municipality_name,
        comarca_name

),

unmatched_services as (

    select
        places.snapshot_id,
        sum(places.services) as rows_unmatched
    from places
    inner join {{ ref('int_municipality_match') }} as matches
        on {{ stated_place('places') }} = matches.stated_place
    where matches.municipality_id is null
    group by places.snapshot_id

),

contradicting_boundaries as (

    select
        boundaries.snapshot_id,
        count(*) as rows_unmatched
    from {{ source('staging', 'boundaries') }} as boundaries
    inner join {{ ref('dim_municipality') }} as municipalities
        on
            boundaries.area_id = municipalities.municipality_id
            and municipalities.is_current
    where
        boundaries.level = 'municipality'
        and boundaries.comarca_id <> municipalities.comarca_id
    group by boundaries.snapshot_id

),

unmatched as (

    select
        'social_services' as dataset_id,
        snapshot_id,
        rows_unmatched
    from unmatched_services

    union all

    select
        'boundaries' as dataset_id,
        snapshot_id,
        rows_unmatched
    from contradicting_boundaries

),

controls as (

    select
        dataset_id,
        snapshot_id,
        count(*) as controls,
        sum(case when published = computed then 0 else 1 end) as controls_differing
    from {{ source('staging', 'controls') }}
    group by
        dataset_id,
        snapshot_id

)

select
    snapshots.dataset_id,
    snapshots.snapshot_id,
    snapshots.snapshot_date,
    last_of_day.snapshot_id is not null as is_last_of_day,
    coalesce(last_of_day.is_newest, false) as is_newest,
    cast(snapshots.rows_in as bigint) as rows_in,
    cast(snapshots.rows_staged as bigint) as rows_staged,
    cast(snapshots.rows_quarantined as bigint) as rows_quarantined,
    cast(snapshots.rows_duplicated as bigint) as rows_duplicated,
    cast(coalesce(unmatched.rows_unmatched, 0) as bigint) as rows_unmatched,
    cast(coalesce(controls.controls, 0) as bigint) as controls,
    cast(coalesce(controls.controls_differing, 0) as bigint) as controls_differing
from {{ source('staging', 'snapshots') }} as snapshots
left join {{ ref('int_snapshots') }} as last_of_day
    on
        snapshots.dataset_id = last_of_day.dataset_id
        and snapshots.snapshot_id = last_of_day.snapshot_id
left join unmatched
    on
        snapshots.dataset_id = unmatched.dataset_id
        and snapshots.snapshot_id = unmatched.snapshot_id
left join controls
    on
        snapshots.dataset_id = controls.dataset_id
        and snapshots.snapshot_id = controls.snapshot_id
