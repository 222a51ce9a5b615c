with division as (

    select
        comarca_id,
        max(comarca_name) as name,
        count(*) as municipalities
    from {{ ref('dim_municipality') }}
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

newest_list as (

    select snapshot_date
    from {{ ref('int_snapshots') }}
    where
        dataset_id = 'municipalities'
        and is_newest

)

select
    division.comarca_id,
    coalesce(division.name, official_names.name, division.comarca_id) as name,
    division.municipalities,
    newest_list.snapshot_date as division_on
from division
cross join newest_list
left join official_names on division.comarca_id = official_names.comarca_id
