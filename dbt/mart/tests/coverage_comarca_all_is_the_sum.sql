-- The row of all owners is the sum of the ownerships, in every territory.
select
    comarca_id,
    year,
    service_group,
    sum(case when ownership = 'all' then services else -services end) as services_difference,
    sum(case when ownership = 'all' then places else -places end) as places_difference
from {{ ref('coverage_comarca') }}
group by comarca_id, year, service_group
having
    sum(case when ownership = 'all' then services else -services end) <> 0
    or sum(case when ownership = 'all' then places else -places end) <> 0
