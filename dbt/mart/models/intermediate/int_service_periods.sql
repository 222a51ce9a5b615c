with states as (

    select
        service_id,
        first_number,
        last_number,
        name,
        service_type,
        registered_on,
        places,
        address,
        district,
        postal_code,
        municipality_name,
        comarca_name,
        owner_name,
        ownership_name
    from {{ ref('int_service_states') }}

),

matches as (

    select
        stated_place,
        municipality_id,
        municipality_match,
        unmatched_reason,
        comarca_contradicts,
        postal_code_contradicts
    from {{ ref('int_municipality_match') }}

),

quarantined as (

    select
        dataset_id,
        snapshot_id,
        row_key
    from {{ source('staging', 'quarantined') }}

),

snapshots as (

    select
        snapshot_number,
        snapshot_id,
        snapshot_date,
        next_snapshot_date
    from {{ ref('int_snapshots') }}
    where dataset_id = 'social_services'

),

service_types as (

    select distinct
        service_type,
        {{ slug('service_type') }} as service_type_id
    from states

),

ownership_names as (

    select distinct
        ownership_name,
        {{ comparable_text('ownership_name') }} as ownership_key
    from states

),

resolved as (

    select
        states.service_id,
        states.first_number,
        states.last_number,
        states.name,
        service_types.service_type_id,
        states.registered_on,
        states.places,
        states.address,
        states.district,
        states.postal_code,
        states.municipality_name as stated_municipality_name,
        states.comarca_name as stated_comarca_name,
        matches.municipality_id,
        matches.municipality_match,
        matches.unmatched_reason,
        matches.comarca_contradicts,
        matches.postal_code_contradicts,
        states.owner_name,
        case ownership_names.ownership_key
            when 'entitat d''iniciativa publica' then 'public'
            when 'entitat privada d''iniciativa social' then 'social_initiative'
            when 'entitat privada d''iniciativa mercantil' then 'mercantile'
            else 'unknown'
        end as ownership
    from states
    left join service_types on states.service_type = service_types.service_type
    left join ownership_names on states.ownership_name = ownership_names.ownership_name
    left join matches
        on {{ stated_place('states', province_of('states.postal_code')) }} = matches.stated_place

),

hashed as (

    select
        service_id,
        first_number,
        last_number,
        {{ state_hash([
            'name', 'service_type_id', 'registered_on', 'places', 'address', 'district', 'postal_code',
            "coalesce(municipality_id, stated_municipality_name)", 'owner_name', 'ownership',
        ]) }} as state_hash
    from resolved

),

islands as (

    {{ islands('hashed', 'service_id') }}

),

periods as (

    select
        service_id,
        first_number,
        last_number,
        row_number() over (partition by service_id order by first_number) as period_number
    from islands

),

in_quarantine as (

    select
        quarantined.row_key,
        snapshots.snapshot_number
    from quarantined
    inner join snapshots on quarantined.snapshot_id = snapshots.snapshot_id
    where quarantined.dataset_id = 'social_services'

),

beginnings as (

    select
        service_id,
        min(first_number) as first_number
    from states
    group by service_id

),

-- Services that the first snapshot has already: staged, or in quarantine there and in every one until it is staged.
from_the_start as (

    select
        beginnings.service_id,
        beginnings.first_number
    from beginnings
    left join in_quarantine
        on
            {{ row_key('social_services', 'beginnings') }} = in_quarantine.row_key
            and beginnings.first_number > in_quarantine.snapshot_number
    group by
        beginnings.service_id,
        beginnings.first_number
    having count(in_quarantine.snapshot_number) = beginnings.first_number - 1

)

select
    resolved.service_id,
    periods.period_number,
    periods.first_number,
    periods.last_number,
    resolved.name,
    resolved.service_type_id,
    resolved.registered_on,
    resolved.places,
    resolved.address,
    resolved.district,
    resolved.postal_code,
    resolved.stated_municipality_name,
    resolved.stated_comarca_name,
    resolved.municipality_id,
    resolved.municipality_match,
    resolved.unmatched_reason,
    resolved.comarca_contradicts,
    resolved.postal_code_contradicts,
    resolved.owner_name,
    resolved.ownership,
    first_snapshots.snapshot_date as valid_from,
    last_snapshots.next_snapshot_date as valid_to,
    case when from_the_start.service_id is not null then first_of_all.snapshot_date end as known_from,
    first_snapshots.snapshot_id as first_snapshot_id,
    last_snapshots.snapshot_id as last_snapshot_id
from periods
inner join resolved
    on
        periods.service_id = resolved.service_id
        and periods.first_number = resolved.first_number
inner join snapshots as first_snapshots on periods.first_number = first_snapshots.snapshot_number
inner join snapshots as last_snapshots on periods.last_number = last_snapshots.snapshot_number
inner join snapshots as first_of_all on first_of_all.snapshot_number = 1
left join from_the_start
    on
        periods.service_id = from_the_start.service_id
        and periods.first_number = from_the_start.first_number
