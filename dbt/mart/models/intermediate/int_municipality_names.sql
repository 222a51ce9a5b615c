with municipalities as (

    select
        municipality_id,
        name,
        is_current
    from {{ ref('dim_municipality') }}

),

former_names as (

    select
        municipality_id,
        former_name
    from {{ ref('municipality_former_names') }}

),

successions as (

    select
        municipality_id,
        name,
        successor_id
    from {{ ref('municipality_successions') }}

),

territories as (

    select
        municipality_id,
        counted_in_id
    from {{ ref('int_municipality_territories') }}

),

names as (

    select
        territories.counted_in_id as municipality_id,
        municipalities.name,
        municipalities.is_current as is_current_name
    from municipalities
    inner join territories on municipalities.municipality_id = territories.municipality_id

    union all

    select
        territories.counted_in_id as municipality_id,
        former_names.former_name as name,
        false as is_current_name
    from former_names
    inner join territories on former_names.municipality_id = territories.municipality_id

    union all

    select
        territories.counted_in_id as municipality_id,
        successions.name,
        false as is_current_name
    from successions
    inner join territories
        on
            successions.municipality_id = territories.municipality_id
            and successions.successor_id = territories.counted_in_id

),

keyed as (

    select
        municipality_id,
        {{ place_key('name') }} as name_key,
        is_current_name
    from names

),

spelled as (

    select
        municipality_id,
        name_key,
        is_current_name,
        false as is_without_article
    from keyed

    union all

    select
        municipality_id,
        {{ without_article('name_key') }} as name_key,
        false as is_current_name,
        true as is_without_article
    from keyed
    where name_key <> {{ without_article('name_key') }}

)

select
    municipality_id,
    name_key,
    max(case when is_current_name then 1 else 0 end) = 1 as is_current_name,
    min(case when is_without_article then 1 else 0 end) = 1 as is_without_article
from spelled
group by
    municipality_id,
    name_key
