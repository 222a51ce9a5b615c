with municipalities as (

    select
        municipality_id,
        comarca_id,
        is_current
    from {{ ref('dim_municipality') }}

),

former_comarques as (

    select
        municipality_id,
        comarca_id
    from {{ ref('municipality_former_comarques') }}

),

territories as (

    select
        municipality_id,
        counted_in_id
    from {{ ref('int_municipality_territories') }}

),

memberships as (

    select
        territories.counted_in_id as municipality_id,
        municipalities.comarca_id,
        municipalities.is_current
    from municipalities
    inner join territories on municipalities.municipality_id = territories.municipality_id

    union all

    select
        territories.counted_in_id as municipality_id,
        former_comarques.comarca_id,
        false as is_current
    from former_comarques
    inner join territories on former_comarques.municipality_id = territories.municipality_id

)

select
    municipality_id,
    comarca_id,
    max(case when is_current then 1 else 0 end) = 1 as is_current_comarca
from memberships
where comarca_id is not null
group by
    municipality_id,
    comarca_id
