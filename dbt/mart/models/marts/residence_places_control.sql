with divisions as (

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
    from {{ ref('int_services_by_year') }} as services
    inner join {{ ref('int_municipality_division') }} as municipalities
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
    from {{ ref('official_residence_places') }} as official
    left join {{ ref('int_years') }} as years on official.year = years.year
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
    left join {{ ref('int_unmatched_residence_places') }} as unmatched_here
        on
            official.year = unmatched_here.year
            and official.ownership = unmatched_here.ownership
            and official.comarca_id = unmatched_here.stated_comarca_id
    left join {{ ref('int_unmatched_residence_places') }} as unmatched_somewhere
        on
            official.year = unmatched_somewhere.year
            and official.ownership = unmatched_somewhere.ownership
            and unmatched_somewhere.stated_comarca_id = 'unknown'

),

differing as (

    select
        year,
        comarca_id,
        ownership,
        division_on,
        basis,
        places_official,
        places_computed,
        places_computed - places_official as places_difference,
        places_of_unknown_owners,
        places_unmatched,
        source
    from compared

)

select
    year,
    comarca_id,
    ownership,
    division_on,
    basis,
    cast(places_official as bigint) as places_official,
    cast(places_computed as bigint) as places_computed,
    cast(places_difference as bigint) as places_difference,
    case
        when abs(places_difference) <= {{ var('control_tolerance_places') }} then true
        when places_difference is not null
            then abs(places_difference) <= places_official * cast({{ var('control_tolerance_ratio') }} as double)
    end as is_within_tolerance,
    case
        when places_difference = 0 then cast(null as varchar)
        when places_difference is null then 'not_covered'
        when basis = 'inscription' then 'read_back'
        when places_difference < 0 and places_of_unknown_owners >= -places_difference then 'unknown_ownership'
        when places_difference < 0 and places_unmatched >= -places_difference then 'unmatched_services'
        else 'unexplained'
    end as difference_reason,
    source
from differing
