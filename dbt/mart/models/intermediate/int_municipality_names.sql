with municipalities as (

    select
        municipality_id,
        name
    from {{ ref('dim_municipality') }}
    where is_current

),

names as (

    select
        municipality_id,
        name,
        true as is_current_name
    from municipalities

    union all

    select
        municipality_id,
        name,
        false as is_current_name
    from {{ ref('dim_municipality') }}
    where not is_current

    union all

    select
        municipality_id,
        former_name as name,
        false as is_current_name
    from {{ ref('municipality_former_names') }}

),

keyed as (

    select
        municipality_id,
        {{ place_key('name') }} as name_key,
        is_current_name
    from names

)

select
    keyed.municipality_id,
    keyed.name_key,
    max(case when keyed.is_current_name then 1 else 0 end) = 1 as is_current_name
from keyed
inner join municipalities on keyed.municipality_id = municipalities.municipality_id
group by
    keyed.municipality_id,
    keyed.name_key
