with comarca_names as (

    select
        comarca_id,
        name
    from {{ ref('comarca_names') }}

),

municipalities as (

    select
        comarca_id,
        comarca_name
    from {{ ref('dim_municipality') }}

),

names as (

    select
        {{ place_key('name') }} as comarca_key,
        comarca_id
    from comarca_names

    union distinct

    select
        {{ place_key('comarca_name') }} as comarca_key,
        comarca_id
    from municipalities
    where comarca_name is not null

)

select
    comarca_key,
    min(comarca_id) as comarca_id
from names
group by comarca_key
having count(distinct comarca_id) = 1
