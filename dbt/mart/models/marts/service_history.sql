with service_periods as (

    select
        service_id,
        name,
        service_type_id,
        registered_on,
        places,
        address,
        district,
        postal_code,
        stated_municipality_name,
        stated_comarca_name,
        municipality_id,
        municipality_match,
        unmatched_reason,
        comarca_contradicts,
        postal_code_contradicts,
        owner_name,
        ownership,
        valid_from,
        valid_to,
        first_snapshot_id,
        last_snapshot_id,
        known_from
    from {{ ref('int_service_periods') }}

),

service_types as (

    select
        service_type_id,
        service_group
    from {{ ref('dim_service_type') }}

),

territories as (

    select
        municipality_id,
        comarca_id
    from {{ ref('int_municipality_territories') }}

),

timeline as (

    select
        service_id,
        name,
        service_type_id,
        registered_on,
        places,
        address,
        district,
        postal_code,
        stated_municipality_name,
        stated_comarca_name,
        municipality_id,
        municipality_match,
        unmatched_reason,
        comarca_contradicts,
        postal_code_contradicts,
        owner_name,
        ownership,
        'observed' as basis,
        valid_from,
        valid_to,
        first_snapshot_id,
        last_snapshot_id
    from service_periods

    union all

    select
        service_id,
        name,
        service_type_id,
        registered_on,
        places,
        address,
        district,
        postal_code,
        stated_municipality_name,
        stated_comarca_name,
        municipality_id,
        municipality_match,
        unmatched_reason,
        comarca_contradicts,
        postal_code_contradicts,
        owner_name,
        ownership,
        'inscription' as basis,
        registered_on as valid_from,
        known_from as valid_to,
        first_snapshot_id,
        first_snapshot_id as last_snapshot_id
    from service_periods
    where registered_on < known_from

)

select
    timeline.service_id,
    timeline.name,
    timeline.service_type_id,
    coalesce(service_types.service_group, 'other') as service_group,
    timeline.municipality_id,
    timeline.municipality_match,
    timeline.unmatched_reason,
    timeline.comarca_contradicts,
    timeline.postal_code_contradicts,
    territories.comarca_id,
    timeline.stated_municipality_name,
    timeline.stated_comarca_name,
    timeline.places,
    timeline.ownership,
    timeline.owner_name,
    timeline.address,
    timeline.district,
    timeline.postal_code,
    timeline.registered_on,
    timeline.basis,
    timeline.valid_from,
    timeline.valid_to,
    timeline.valid_to is null as is_current,
    timeline.first_snapshot_id,
    timeline.last_snapshot_id
from timeline
left join service_types
    on timeline.service_type_id = service_types.service_type_id
left join territories
    on timeline.municipality_id = territories.municipality_id
