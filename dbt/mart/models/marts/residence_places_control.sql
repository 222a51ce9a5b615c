with services as (

    select
        year,
        municipality_id,
        service_group,
        ownership,
        places
    from {{ ref('int_services_by_year') }}

),

municipalities as (

    select
        division_on,
        municipality_id,
        comarca_id
    from {{ ref('int_municipality_division') }}

),

official as (

    select
        year,
        comarca_id,
        ownership,
        places,
        division_on,
        source
    from {{ ref('official_residence_places') }}

),

years as (

    select
        year,
        basis
    from {{ ref('int_years') }}

),

unmatched_residence_places as (

    select
        year,
        ownership,
        stated_comarca_id,
        places
    from {{ ref('int_unmatched_residence_places') }}

),

divisions as (

    select distinct
        division_on,
        comarca_id
    from {{ ref('int_municipality_division') }}

),

located as (

    select
        services.year,
        services.ownership,
        municipalities.division_on,
        municipalities.comarca_id,
        sum(services.places) as places
    from services
    inner join municipalities
        on services.municipality_id = municipalities.municipality_id
    where services.service_group in ('assisted_residence', 'home_residence')
    group by
        services.year,
        services.ownership,
        municipalities.division_on,
        municipalities.comarca_id

),

compared as (

    select
        official.year,
        official.comarca_id,
        official.ownership,
        official.division_on,
        official.places as places_official,
        official.source,
        case when divisions.comarca_id is not null then years.basis end as basis,
        case
            when years.year is not null and divisions.comarca_id is not null then coalesce(located.places, 0)
        end as places_computed,
        coalesce(of_unknown_owners.places, 0) as places_of_unknown_owners,
        coalesce(unmatched_here.places, 0) + coalesce(unmatched_somewhere.places, 0) as places_unmatched
    from official
    left join years on official.year = years.year
    left join divisions
        on
            official.division_on = divisions.division_on
            and official.comarca_id = divisions.comarca_id
    left join located
        on
            official.year = located.year
            and official.division_on = located.division_on
            and official.comarca_id = located.comarca_id
            and official.ownership = located.ownership
    left join located as of_unknown_owners
        on
            official.year = of_unknown_owners.year
            and official.division_on = of_unknown_owners.division_on
            and official.comarca_id = of_unknown_owners.comarca_id
            and of_unknown_owners.ownership = 'unknown'
    left join unmatched_residence_places as unmatched_here
        on
            official.year = unmatched_here.year
            and official.ownership = unmatched_here.ownership
            and official.comarca_id = unmatched_here.stated_comarca_id
    left join unmatched_residence_places as unmatched_somewhere
        on
            official.year = unmatched_somewhere.year
            and official.ownership = unmatched_somewhere.ownership
            and unmatched_somewhere.stated_comarca_id = 'unknown'

)

select
    year,
    comarca_id,
    ownership,
    division_on,
    basis,
    {{ places_comparison() }},
    source
from compared
