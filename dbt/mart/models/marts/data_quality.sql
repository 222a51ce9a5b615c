with services as (

    select
        snapshot_id,
        source_snapshot_id,
        municipality_name,
        postal_code,
        comarca_name
    from {{ ref('stg_social_services') }}

),

matches as (

    select
        stated_place,
        municipality_id,
        comarca_contradicts,
        postal_code_contradicts
    from {{ ref('int_municipality_match') }}

),

boundaries as (

    select snapshot_id
    from {{ ref('int_contradicting_boundaries') }}

),

applied_corrections as (

    select
        dataset_id,
        snapshot_id,
        row_key
    from {{ ref('int_corrections') }}

),

carried_rows as (

    select
        dataset_id,
        snapshot_id
    from {{ ref('int_carried_rows') }}

),

invalid as (

    select
        dataset_id,
        snapshot_id,
        column_name,
        rows
    from {{ source('staging', 'invalid_values') }}

),

published_controls as (

    select
        dataset_id,
        snapshot_id,
        control,
        period,
        published,
        computed
    from {{ source('staging', 'controls') }}

),

snapshots as (

    select
        dataset_id,
        snapshot_id,
        snapshot_date,
        rows_in,
        rows_staged,
        rows_quarantined,
        rows_duplicated
    from {{ source('staging', 'snapshots') }}

),

control as (

    select
        year,
        comarca_id,
        ownership,
        places_official,
        places_computed,
        difference_reason
    from {{ ref('residence_places_control') }}

),

counted_snapshots as (

    select
        dataset_id,
        snapshot_id,
        is_newest
    from {{ ref('int_snapshots') }}

),

places as (

    select
        services.snapshot_id,
        services.municipality_name,
        services.comarca_name,
        {{ province_of('services.postal_code') }} as postal_province,
        count(*) as services
    from services
    where services.source_snapshot_id = services.snapshot_id
    group by
        services.snapshot_id,
        services.municipality_name,
        services.comarca_name,
        {{ province_of('services.postal_code') }}

),

matched_services as (

    select
        places.snapshot_id,
        sum(case when matches.municipality_id is null then places.services else 0 end) as rows_unmatched,
        sum(case when matches.comarca_contradicts then places.services else 0 end) as rows_comarca_contradicts,
        sum(case when matches.postal_code_contradicts then places.services else 0 end)
            as rows_postal_code_contradicts
    from places
    inner join matches
        on {{ stated_place('places', 'places.postal_province') }} = matches.stated_place
    group by places.snapshot_id

),

contradicting_boundaries as (

    select
        snapshot_id,
        count(*) as rows_unmatched
    from boundaries
    group by snapshot_id

),

unmatched as (

    select
        'social_services' as dataset_id,
        snapshot_id,
        rows_unmatched,
        rows_comarca_contradicts,
        rows_postal_code_contradicts
    from matched_services

    union all

    select
        'boundaries' as dataset_id,
        snapshot_id,
        rows_unmatched,
        0 as rows_comarca_contradicts,
        0 as rows_postal_code_contradicts
    from contradicting_boundaries

),

corrections as (

    select
        dataset_id,
        snapshot_id,
        count(distinct row_key) as rows_corrected
    from applied_corrections
    group by
        dataset_id,
        snapshot_id

),

carried as (

    select
        dataset_id,
        snapshot_id,
        count(*) as rows_carried_forward
    from carried_rows
    group by
        dataset_id,
        snapshot_id

),

invalid_values as (

    select
        invalid.dataset_id,
        invalid.snapshot_id,
        sum(invalid.rows) as values_invalid,
        {{ joined_text("invalid.column_name || ': ' || cast(invalid.rows as varchar)", ', ', 'invalid.column_name') }}
            as values_invalid_by_column
    from invalid
    group by
        invalid.dataset_id,
        invalid.snapshot_id

),

compared as (

    select
        controls.dataset_id,
        controls.snapshot_id,
        controls.control || ' of Catalonia, ' || controls.period as compared_in,
        controls.published,
        controls.computed,
        case when snapshots.rows_quarantined > 0 then 'rows_quarantined' else 'unexplained' end as reason
    from published_controls as controls
    left join snapshots
        on
            controls.dataset_id = snapshots.dataset_id
            and controls.snapshot_id = snapshots.snapshot_id

    union all

    select
        newest.dataset_id,
        newest.snapshot_id,
        'residence places of comarca ' || control.comarca_id || ', ' || control.ownership || ', '
        || cast(control.year as varchar) as compared_in,
        control.places_official as published,
        control.places_computed as computed,
        control.difference_reason as reason
    from control
    inner join counted_snapshots as newest
        on
            newest.dataset_id = 'social_services'
            and newest.is_newest
    where control.places_computed is not null

),

ranked as (

    select
        dataset_id,
        snapshot_id,
        compared_in,
        published,
        computed,
        reason,
        row_number() over (
            partition by dataset_id, snapshot_id
            order by abs(computed - published) desc, compared_in asc
        ) as place
    from compared

),

controls as (

    select
        dataset_id,
        snapshot_id,
        count(*) as controls,
        sum(case when published = computed then 0 else 1 end) as controls_differing
    from compared
    group by
        dataset_id,
        snapshot_id

),

largest as (

    select
        dataset_id,
        snapshot_id,
        compared_in,
        published,
        computed,
        reason
    from ranked
    where
        place = 1
        and published <> computed

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
    cast(coalesce(unmatched.rows_comarca_contradicts, 0) as bigint) as rows_comarca_contradicts,
    cast(coalesce(unmatched.rows_postal_code_contradicts, 0) as bigint) as rows_postal_code_contradicts,
    cast(coalesce(corrections.rows_corrected, 0) as bigint) as rows_corrected,
    cast(coalesce(carried.rows_carried_forward, 0) as bigint) as rows_carried_forward,
    cast(coalesce(invalid_values.values_invalid, 0) as bigint) as values_invalid,
    invalid_values.values_invalid_by_column,
    cast(coalesce(controls.controls, 0) as bigint) as controls,
    cast(coalesce(controls.controls_differing, 0) as bigint) as controls_differing,
    largest.compared_in as largest_difference_in,
    cast(largest.published as bigint) as largest_difference_published,
    cast(largest.computed as bigint) as largest_difference_computed,
    cast(largest.computed - largest.published as bigint) as largest_difference,
    largest.reason as largest_difference_reason
from snapshots
left join counted_snapshots as last_of_day
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
left join largest
    on
        snapshots.dataset_id = largest.dataset_id
        and snapshots.snapshot_id = largest.snapshot_id
left join carried
    on
        snapshots.dataset_id = carried.dataset_id
        and snapshots.snapshot_id = carried.snapshot_id
left join invalid_values
    on
        snapshots.dataset_id = invalid_values.dataset_id
        and snapshots.snapshot_id = invalid_values.snapshot_id
left join corrections
    on
        snapshots.dataset_id = corrections.dataset_id
        and snapshots.snapshot_id = corrections.snapshot_id
