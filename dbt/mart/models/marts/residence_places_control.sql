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

)

select
    official.year,
    official.comarca_id,
    official.ownership,
    computed.basis,
    cast(official.places as bigint) as places_official,
    cast(computed.places as bigint) as places_computed,
    cast(computed.places - official.places as bigint) as places_difference,
    official.source
from {{ ref('official_residence_places') }} as official
left join computed
    on
        official.year = computed.year
        and official.comarca_id = computed.comarca_id
        and official.ownership = computed.ownership
