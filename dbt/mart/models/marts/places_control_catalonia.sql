-- A residence is both kinds of it, as in the published table.
with covered as (

    select
        year,
        basis,
        case when service_group = 'day_centre' then 'day_centre' else 'residence' end as facility,
        ownership,
        sum(places) as places,
        sum(places_unmatched) as places_unmatched
    from {{ ref('coverage_catalonia') }}
    where
        service_group in ('assisted_residence', 'home_residence', 'day_centre')
        and ownership <> 'all'
    group by
        year,
        basis,
        case when service_group = 'day_centre' then 'day_centre' else 'residence' end,
        ownership

),

owners_unknown as (

    select
        year,
        facility,
        places
    from covered
    where ownership = 'unknown'

),

compared as (

    select
        official.year,
        official.facility,
        official.ownership,
        covered.basis,
        official.places as places_official,
        covered.places as places_computed,
        covered.places - official.places as places_difference,
        coalesce(owners_unknown.places, 0) as places_of_unknown_owners,
        covered.places_unmatched,
        official.source
    from {{ ref('official_places_catalonia') }} as official
    left join covered
        on
            official.year = covered.year
            and official.facility = covered.facility
            and official.ownership = covered.ownership
    left join owners_unknown
        on
            official.year = owners_unknown.year
            and official.facility = owners_unknown.facility

)

select
    year,
    facility,
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
