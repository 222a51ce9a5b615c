with territories as (

    select
        comarca_id,
        comarca_name,
        is_current
    from {{ ref('int_municipality_territories') }}

),

comarques as (

    select
        comarca_id,
        max(comarca_name) as name,
        count(*) as municipalities
    from territories
    where
        is_current
        and comarca_id is not null
    group by comarca_id

),

official_names as (

    select
        comarca_id,
        name
    from {{ ref('comarca_names') }}
    where is_official

),

division as (

    {{ division() }}

)

select
    comarques.comarca_id,
    coalesce(comarques.name, official_names.name, comarques.comarca_id) as name,
    comarques.municipalities,
    division.division_on
from comarques
cross join division
left join official_names on comarques.comarca_id = official_names.comarca_id
