select
    years.year,
    history.ownership,
    coalesce(comarques.comarca_id, 'unknown') as stated_comarca_id,
    cast(coalesce(sum(history.places), 0) as bigint) as places
from {{ ref('int_years') }} as years
inner join {{ ref('service_history') }} as history
    on
        years.reference_date >= history.valid_from
        and (history.valid_to is null or years.reference_date < history.valid_to)
left join {{ ref('int_comarca_names') }} as comarques
    on {{ place_key('history.stated_comarca_name') }} = comarques.comarca_key
where
    history.municipality_id is null
    and history.service_group in ('assisted_residence', 'home_residence')
group by
    years.year,
    history.ownership,
    coalesce(comarques.comarca_id, 'unknown')
