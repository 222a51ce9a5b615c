with service_periods as (

    select
        service_id,
        period_number,
        first_number,
        name,
        service_type_id,
        places,
        address,
        stated_municipality_name,
        municipality_id,
        owner_name,
        ownership,
        valid_from,
        valid_to,
        known_from,
        first_snapshot_id
    from {{ ref('int_service_periods') }}

),

service_types as (

    select
        service_type_id,
        name,
        service_group
    from {{ ref('dim_service_type') }}

),

snapshots as (

    select
        dataset_id,
        snapshot_id,
        snapshot_date
    from {{ ref('int_snapshots') }}

),

periods as (

    select
        periods.service_id,
        periods.period_number,
        periods.first_number,
        periods.name,
        periods.service_type_id,
        service_types.name as service_type,
        coalesce(service_types.service_group, 'other') as service_group,
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
        periods.known_from,
        periods.first_snapshot_id
    from service_periods as periods
    left join service_types
        on periods.service_type_id = service_types.service_type_id

),

-- Every period that began after the first snapshot, beside the one before it; not that of a service that the first
-- snapshot has in quarantine.
steps as (

    select
        later.service_id,
        later.municipality_id,
        later.service_group,
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
    from periods as later
    left join periods as earlier
        on
            later.service_id = earlier.service_id
            and later.period_number = earlier.period_number + 1
    where
        later.first_number > 1
        and later.known_from is null

),

endings as (

    select
        earlier.service_id,
        earlier.municipality_id,
        earlier.service_group,
        earlier.valid_to as changed_on,
        earlier.name as name_before
    from periods as earlier
    left join periods as later
        on
            earlier.service_id = later.service_id
            and earlier.period_number + 1 = later.period_number
            and earlier.valid_to = later.valid_from
    where
        earlier.valid_to is not null
        and later.service_id is null

),

-- All kinds of change are tested in one pass over the steps, since some engines compute a CTE again for each use.
changes as (

    select
        steps.service_id,
        steps.municipality_id,
        steps.service_group,
        steps.changed_on,
        steps.snapshot_id,
        kinds.change,
        case kinds.change
            when 'reopened' then steps.name_before
            when 'capacity_changed' then cast(steps.places_before as varchar)
            when 'moved' then steps.location_before
            when 'owner_changed' then steps.owner_before
            when 'type_changed' then steps.service_type_before
            when 'renamed' then steps.name_before
        end as before,
        case kinds.change
            when 'opened' then steps.name_after
            when 'reopened' then steps.name_after
            when 'capacity_changed' then cast(steps.places_after as varchar)
            when 'moved' then steps.location_after
            when 'owner_changed' then steps.owner_after
            when 'type_changed' then steps.service_type_after
            when 'renamed' then steps.name_after
        end as after
    from steps
    cross join (
        values
        ('opened'), ('reopened'), ('capacity_changed'), ('moved'), ('owner_changed'), ('type_changed'), ('renamed')
    ) as kinds (change)
    where
        steps.is_continued = (kinds.change not in ('opened', 'reopened'))
        and case kinds.change
            when 'opened' then not steps.was_known
            when 'reopened' then steps.was_known
            when 'capacity_changed' then steps.places_before is distinct from steps.places_after
            when 'moved'
                then
                    steps.place_before is distinct from steps.place_after
                    or steps.address_before is distinct from steps.address_after
            when 'owner_changed'
                then
                    steps.owner_name_before is distinct from steps.owner_name_after
                    or steps.ownership_before is distinct from steps.ownership_after
            when 'type_changed' then steps.service_type_id_before is distinct from steps.service_type_id_after
            when 'renamed' then steps.name_before is distinct from steps.name_after
        end

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
    inner join snapshots
        on
            endings.changed_on = snapshots.snapshot_date
            and snapshots.dataset_id = 'social_services'

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
