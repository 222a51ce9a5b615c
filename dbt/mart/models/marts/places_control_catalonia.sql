-- A residence is both kinds of it, as in the published table.
with coverage_catalonia as (

    select
        year,
        service_group,
        ownership,
        basis,
        places,
        places_unmatched
    from {{ ref('coverage_catalonia') }}

),

official as (

    select
        year,
        facility,
        ownership,
        places,
        source
    from {{ ref('official_places_catalonia') }}

),

covered as (

    select
        year,
        basis,
        case when service_group = 'day_centre' then 'day_centre' else 'residence' end as facility,
        ownership,
        sum(places) as places,
        sum(places_unmatched) as places_unmatched
    from coverage_catalonia
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
        coalesce(owners_unknown.places, 0) as places_of_unknown_owners,
        covered.places_unmatched,
        official.source
    from official
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
    {{ places_comparison() }},
    source
from compared
