-- Municipalities sum to comarques and these to Catalonia, exactly, in every category. A municipality that left the list
-- and whose comarca is none of today's is in Catalonia alone.
with of_comarques as (

    select
        year,
        service_group,
        ownership,
        basis,
        services,
        places,
        people_aged_65_over
    from {{ ref('coverage_comarca') }}

    union all

    select
        coverage.year,
        coverage.service_group,
        coverage.ownership,
        coverage.basis,
        coverage.services,
        coverage.places,
        coverage.people_aged_65_over
    from {{ ref('coverage_municipality') }} as coverage
    inner join {{ ref('int_municipality_territories') }} as territories
        on coverage.municipality_id = territories.municipality_id
    where territories.comarca_id is null

),

sums as (

    select
        'municipality' as level,
        year,
        service_group,
        ownership,
        basis,
        sum(services) as services,
        sum(places) as places,
        sum(people_aged_65_over) as people
    from {{ ref('coverage_municipality') }}
    group by year, service_group, ownership, basis

    union all

    select
        'comarca' as level,
        year,
        service_group,
        ownership,
        basis,
        sum(services) as services,
        sum(places) as places,
        sum(people_aged_65_over) as people
    from of_comarques
    group by year, service_group, ownership, basis

    union all

    select
        'catalonia' as level,
        year,
        service_group,
        ownership,
        basis,
        services,
        places,
        people_aged_65_over as people
    from {{ ref('coverage_catalonia') }}

)

select
    year,
    service_group,
    ownership,
    basis,
    min(services) as services_least,
    max(services) as services_most,
    min(places) as places_least,
    max(places) as places_most,
    min(people) as people_least,
    max(people) as people_most
from sums
group by year, service_group, ownership, basis
having
    count(*) <> 3
    or min(services) <> max(services)
    or min(places) <> max(places)
    or min(people) <> max(people)
    or (count(people) <> 3 and count(people) <> 0)
