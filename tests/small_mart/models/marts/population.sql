with ranked as (

    select
        *,
        dense_rank() over (partition by year order by snapshot_id desc) as place
    from {{ ref('stg_population') }}

)

select
    municipality_id,
    year,
    name,
    people,
    people_aged_65_over,
    snapshot_id
from ranked
where place = 1
