with years as (

    select
        year,
        basis
    from {{ ref('int_years') }}

),

service_groups (service_group) as (

    values
    ('assisted_residence'),
    ('home_residence'),
    ('sheltered_housing'),
    ('day_centre')

),

ownerships (ownership) as (

    values
    ('public'),
    ('social_initiative'),
    ('mercantile'),
    ('unknown'),
    ('all')

)

select
    years.year,
    years.basis,
    service_groups.service_group,
    ownerships.ownership
from years
cross join service_groups
cross join ownerships
