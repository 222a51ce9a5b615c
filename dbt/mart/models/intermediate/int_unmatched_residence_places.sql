with years as (

    select
        year,
        reference_date
    from {{ ref('int_years') }}

),

history as (

    select
        service_group,
        municipality_id,
        stated_comarca_name,
        places,
        ownership,
        valid_from,
        valid_to
    from {{ ref('service_history') }}

),

comarques as (

    select
        comarca_key,
        comarca_id
    from {{ ref('int_comarca_names') }}

)

select
    years.year,
    history.ownership,
    coalesce(comarques.comarca_id, 'unknown') as stated_comarca_id,
    cast(coalesce(sum(history.places), 0) as bigint) as places
from years
inner join history
    on
        years.reference_date >= history.valid_from
        and (history.valid_to is null or years.reference_date < history.valid_to)
left join comarques
    on {{ place_key('history.stated_comarca_name') }} = comarques.comarca_key
where
    history.municipality_id is null
    and history.service_group in ('assisted_residence', 'home_residence')
group by
    years.year,
    history.ownership,
    coalesce(comarques.comarca_id, 'unknown')
