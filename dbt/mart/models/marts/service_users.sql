with users as (

    select
        snapshot_id,
        source_snapshot_id,
        year,
        comarca_id,
        comarca_name,
        women_in_day_centres,
        men_in_day_centres,
        people_in_day_centres,
        women_in_residences,
        men_in_residences,
        people_in_residences,
        women,
        men,
        people
    from {{ ref('stg_service_users') }}

),

snapshots as (

    select
        dataset_id,
        snapshot_id,
        is_newest
    from {{ ref('int_snapshots') }}

)

select
    users.comarca_id,
    users.year,
    users.comarca_name,
    users.women_in_day_centres,
    users.men_in_day_centres,
    users.people_in_day_centres,
    users.women_in_residences,
    users.men_in_residences,
    users.people_in_residences,
    users.women,
    users.men,
    users.people,
    users.source_snapshot_id as snapshot_id
from users
inner join snapshots
    on
        users.snapshot_id = snapshots.snapshot_id
        and snapshots.dataset_id = 'service_users'
        and snapshots.is_newest
