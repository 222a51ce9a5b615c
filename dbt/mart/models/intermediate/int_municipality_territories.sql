with municipalities as (

    select
        municipality_id,
        comarca_id,
        comarca_name,
        valid_from,
        valid_to,
        is_current
    from {{ ref('dim_municipality') }}

),

successions as (

    select
        municipality_id,
        successor_id,
        abolished_on
    from {{ ref('municipality_successions') }}

),

ranked as (

    select
        municipality_id,
        comarca_id,
        comarca_name,
        valid_to,
        is_current,
        row_number() over (partition by municipality_id order by valid_from desc) as place
    from municipalities

),

listed as (

    select
        municipality_id,
        comarca_id,
        comarca_name,
        valid_to,
        is_current
    from ranked
    where place = 1

),

comarques as (

    select distinct comarca_id
    from listed
    where is_current

),

-- The newest list decides: a municipality in it is not abolished, and one that is not in it is no successor.
succeeded as (

    select
        successions.municipality_id,
        successions.successor_id,
        successions.abolished_on,
        successors.comarca_id,
        successors.comarca_name
    from successions
    inner join listed as successors
        on
            successions.successor_id = successors.municipality_id
            and successors.is_current
    left join listed as predecessors
        on
            successions.municipality_id = predecessors.municipality_id
            and predecessors.is_current
    where predecessors.municipality_id is null

)

select
    listed.municipality_id,
    listed.municipality_id as counted_in_id,
    comarques.comarca_id,
    case when comarques.comarca_id is not null then listed.comarca_name end as comarca_name,
    listed.is_current,
    cast(null as date) as abolished_on,
    listed.valid_to as left_on
from listed
left join comarques on listed.comarca_id = comarques.comarca_id
left join succeeded on listed.municipality_id = succeeded.municipality_id
where succeeded.municipality_id is null

union all

select
    municipality_id,
    successor_id as counted_in_id,
    comarca_id,
    comarca_name,
    false as is_current,
    abolished_on,
    cast(null as date) as left_on
from succeeded
