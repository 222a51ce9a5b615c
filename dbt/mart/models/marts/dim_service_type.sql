with service_types as (

    select
        service_type,
        service_group
    from {{ ref('service_types') }}

),

service_states as (

    select service_type
    from {{ ref('int_service_states') }}

),

stated as (

    select
        service_type as name,
        service_group,
        true as is_listed
    from service_types

    union all

    select distinct
        service_type as name,
        'other' as service_group,
        false as is_listed
    from service_states
    where service_type is not null

),

identified as (

    select
        {{ slug('name') }} as service_type_id,
        {{ visible_text('name') }} as name,
        service_group,
        is_listed
    from stated

),

ranked as (

    select
        service_type_id,
        name,
        service_group,
        is_listed,
        row_number() over (partition by service_type_id order by is_listed desc, name asc) as choice
    from identified

)

select
    service_type_id,
    name,
    service_group,
    is_listed
from ranked
where choice = 1
