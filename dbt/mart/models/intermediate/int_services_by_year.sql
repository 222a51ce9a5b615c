with years as (

    select
        year,
        basis,
        reference_date
    from {{ ref('int_years') }}

),

history as (

    select
        service_group,
        municipality_id,
        comarca_id,
        places,
        ownership,
        valid_from,
        valid_to
    from {{ ref('service_history') }}

),

services as (

    select
        years.year,
        years.basis,
        history.municipality_id,
        history.comarca_id,
        history.service_group,
        history.ownership,
        history.places
    from years
    inner join history
        on
            years.reference_date >= history.valid_from
            and (history.valid_to is null or years.reference_date < history.valid_to)
    where history.service_group <> 'other'

),

by_ownership as (

    select
        year,
        municipality_id,
        comarca_id,
        service_group,
        ownership,
        count(*) as services,
        coalesce(sum(places), 0) as places
    from services
    group by
        year,
        municipality_id,
        comarca_id,
        service_group,
        ownership

),

of_all_owners as (

    select
        year,
        municipality_id,
        comarca_id,
        service_group,
        'all' as ownership,
        count(*) as services,
        coalesce(sum(places), 0) as places
    from services
    group by
        year,
        municipality_id,
        comarca_id,
        service_group

)

select
    year,
    municipality_id,
    comarca_id,
    service_group,
    ownership,
    cast(services as bigint) as services,
    cast(places as bigint) as places
from by_ownership
union all
select
    year,
    municipality_id,
    comarca_id,
    service_group,
    ownership,
    cast(services as bigint) as services,
    cast(places as bigint) as places
from of_all_owners
