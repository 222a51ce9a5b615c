with former_comarques as (

    select
        municipality_id,
        comarca_id,
        valid_to
    from {{ ref('municipality_former_comarques') }}

),

municipalities as (

    select
        municipality_id,
        comarca_id,
        valid_to
    from {{ ref('dim_municipality') }}

),

territories as (

    select
        municipality_id,
        counted_in_id,
        comarca_id
    from {{ ref('int_municipality_territories') }}

),

days as (

    select distinct division_on
    from {{ ref('official_residence_places') }}

),

-- The seed has the day of a change; a list only shows that there was a change before it.
former as (

    select
        municipality_id,
        comarca_id,
        valid_to
    from former_comarques
    where valid_to is not null

    union all

    select
        municipalities.municipality_id,
        municipalities.comarca_id,
        municipalities.valid_to
    from municipalities
    left join former_comarques as dated
        on
            municipalities.municipality_id = dated.municipality_id
            and municipalities.comarca_id = dated.comarca_id
            and dated.valid_to is not null
    where
        municipalities.valid_to is not null
        and dated.municipality_id is null

),

ranked as (

    select
        days.division_on,
        former.municipality_id,
        former.comarca_id,
        row_number() over (
            partition by days.division_on, former.municipality_id
            order by former.valid_to, former.comarca_id
        ) as place
    from days
    inner join former on days.division_on < former.valid_to

)

select
    days.division_on,
    territories.municipality_id,
    coalesce(ranked.comarca_id, territories.comarca_id) as comarca_id
from days
cross join territories
left join ranked
    on
        days.division_on = ranked.division_on
        and territories.municipality_id = ranked.municipality_id
        and ranked.place = 1
where territories.municipality_id = territories.counted_in_id
