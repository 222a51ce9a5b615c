-- In the last year Catalonia has every current service for older people, matched or not, once.
with current_services as (

    select
        count(*) as services,
        coalesce(sum(places), 0) as places
    from {{ ref('service_history') }}
    where
        is_current
        and service_group <> 'other'

),

covered as (

    select
        sum(services + services_unmatched) as services,
        sum(places + places_unmatched) as places
    from {{ ref('coverage_catalonia') }}
    where
        ownership = 'all'
        and year = (select max(years.year) from {{ ref('int_years') }} as years)

)

select
    current_services.services as services_current,
    covered.services as services_covered,
    current_services.places as places_current,
    covered.places as places_covered
from current_services
cross join covered
where
    current_services.services <> covered.services
    or current_services.places <> covered.places
