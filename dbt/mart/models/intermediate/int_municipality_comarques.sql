with memberships as (

    select
        municipality_id,
        comarca_id,
        is_current
    from {{ ref('dim_municipality') }}

    union all

    select
        municipality_id,
        comarca_id,
        false as is_current
    from {{ ref('municipality_former_comarques') }}

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
