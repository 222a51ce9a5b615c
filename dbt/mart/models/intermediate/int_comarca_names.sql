with names as (

    select
        {{ place_key('name') }} as comarca_key,
        comarca_id
    from {{ ref('comarca_names') }}

    union distinct

    select
        {{ place_key('comarca_name') }} as comarca_key,
        comarca_id
    from {{ ref('dim_municipality') }}
    where comarca_name is not null

)

select
    comarca_key,
    min(comarca_id) as comarca_id
from names
group by comarca_key
having count(distinct comarca_id) = 1
