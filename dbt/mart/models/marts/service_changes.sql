with periods as (

    select
        periods.service_id,
        periods.first_number,
        periods.name,
        service_types.name as service_type,
        coalesce(service_types.service_group, 'other') as service_group,
        periods.service_type_id,
        periods.municipality_id,
        coalesce(periods.municipality_id, periods.stated_municipality_name) as place,
        periods.address,
        coalesce(periods.address, '?') || ', ' || coalesce(periods.stated_municipality_name, '?') as location,
        periods.places,
        periods.owner_name,
        periods.ownership,
        coalesce(periods.owner_name, '?') || ' (' || periods.ownership || ')' as owner,
        periods.valid_from,
        periods.valid_to,
        periods.first_snapshot_id
    from {{ ref('int_service_periods') }} as periods
    left join {{ ref('dim_service_type') }} as service_types
        on periods.service_type_id = service_types.service_type_id

),

in_order as (

    select
        service_id,
        row_number() over (partition by service_id order by first_number) as period_number,
        first_number,
        name,
        service_type,
        service_group,
        service_type_id,
        municipality_id,
        place,
        address,
        location,
        places,
        owner_name,
        ownership,
        owner,
        valid_from,
        valid_to,
        first_snapshot_id
    from periods

),

steps as (

    select
        later.service_id,
        later.municipality_id,
        later.service_group,
        later.first_number,
        later.valid_from as changed_on,
        later.first_snapshot_id as snapshot_id,
        earlier.service_id is not null as was_known,
        coalesce(earlier.valid_to = later.valid_from, false) as is_continued,
        earlier.name as name_before,
        later.name as name_after,
        earlier.service_type_id as service_type_id_before,
        later.service_type_id as service_type_id_after,
        earlier.service_type as service_type_before,
        later.service_type as service_type_after,
        earlier.place as place_before,
        later.place as place_after,
        earlier.address as address_before,
        later.address as address_after,
        earlier.location as location_before,
        later.location as location_after,
        earlier.places as places_before,
        later.places as places_after,
        earlier.owner_name as owner_name_before,
        later.owner_name as owner_name_after,
        earlier.ownership as ownership_before,
        later.ownership as ownership_after,
        earlier.owner as owner_before,
        later.owner as owner_after
    from in_order as later
    left join in_order as earlier
        on
            later.service_id = earlier.service_id
            and later.period_number = earlier.period_number + 1

),

endings as (

    select
        earlier.service_id,
        earlier.municipality_id,
        earlier.service_group,
        earlier.valid_to as changed_on,
        earlier.name as name_before
    from in_order as earlier
    left join in_order as later
        on
            earlier.service_id = later.service_id
            and earlier.period_number + 1 = later.period_number
            and earlier.valid_to = later.valid_from
    where
        earlier.valid_to is not null
        and later.service_id is null

),

changes as (

    select
        service_id,
        municipality_id,
        service_group,
        changed_on,
        snapshot_id,
        case when was_known then 'reopened' else 'opened' end as change,
        name_before as before,
        name_after as after
    from steps
    where
        not is_continued
        and first_number > 1

    union all

    select
        endings.service_id,
        endings.municipality_id,
        endings.service_group,
        endings.changed_on,
        snapshots.snapshot_id,
        'closed' as change,
        endings.name_before as before,
        cast(null as varchar) as after
    from endings
    inner join {{ ref('int_snapshots') }} as snapshots
        on
            endings.changed_on = snapshots.snapshot_date
            and snapshots.dataset_id = 'social_services'

    union all

    select
        service_id,
        municipality_id,
        service_group,
        changed_on,
        snapshot_id,
        'capacity_changed' as change,
        cast(places_before as varchar) as before,
        cast(places_after as varchar) as after
    from steps
    where
        is_continued
        and places_before is distinct from places_after

    union all

    select
        service_id,
        municipality_id,
        service_group,
        changed_on,
        snapshot_id,
        'moved' as change,
        location_before as before,
        location_after as after
    from steps
    where
        is_continued
        and (place_before is distinct from place_after or address_before is distinct from address_after)

    union all

    select
        service_id,
        municipality_id,
        service_group,
        changed_on,
        snapshot_id,
        'owner_changed' as change,
        owner_before as before,
        owner_after as after
    from steps
    where
        is_continued
        and (
            owner_name_before is distinct from owner_name_after
            or ownership_before is distinct from ownership_after
        )

    union all

    select
        service_id,
        municipality_id,
        service_group,
        changed_on,
        snapshot_id,
        'type_changed' as change,
        service_type_before as before,
        service_type_after as after
    from steps
    where
        is_continued
        and service_type_id_before is distinct from service_type_id_after

    union all

    select
        service_id,
        municipality_id,
        service_group,
        changed_on,
        snapshot_id,
        'renamed' as change,
        name_before as before,
        name_after as after
    from steps
    where
        is_continued
        and name_before is distinct from name_after

)

select
    service_id,
    changed_on,
    change,
    before,
    after,
    municipality_id,
    service_group,
    snapshot_id
from changes
