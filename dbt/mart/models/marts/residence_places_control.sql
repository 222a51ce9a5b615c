with computed as (

    select
        year,
        comarca_id,
        ownership,
        basis,
        sum(places) as places
    from {{ ref('coverage_comarca') }}
    where service_group in ('assisted_residence', 'home_residence')
    group by
        year,
        comarca_id,
        ownership,
        basis

),

of_unknown_owners as (

    select
        year,
        comarca_id,
        places
    from computed
    where ownership = 'unknown'

),

unmatched as (

    select
        year,
        ownership,
        sum(places_unmatched) as places
    from {{ ref('coverage_catalonia') }}
    where service_group in ('assisted_residence', 'home_residence')
    group by
        year,
        ownership

),

compared as (

    select
        official.year,
        official.comarca_id,
        official.ownership,
        computed.basis,
        official.places as places_official,
        computed.places as places_computed,
        computed.places - official.places as places_difference,
        coalesce(of_unknown_owners.places, 0) as places_of_unknown_owners,
        coalesce(unmatched.places, 0) as places_unmatched,
        official.source
    from {{ ref('official_residence_places') }} as official
    left join computed
        on
            official.year = computed.year
            and official.comarca_id = computed.comarca_id
            and official.ownership = computed.ownership
    left join of_unknown_owners
        on
            official.year = of_unknown_owners.year
            and official.comarca_id = of_unknown_owners.comarca_id
    left join unmatched
        on
            official.year = unmatched.year
            and official.ownership = unmatched.ownership

)

select
    year,
    comarca_id,
    ownership,
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
from compared
