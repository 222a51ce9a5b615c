-- Every municipality that left the newest list has a successor; add a row to the seed municipality_successions.
{{ config(severity='warn') }}

with ranked as (

    select
        municipality_id,
        name,
        comarca_name,
        valid_to,
        row_number() over (partition by municipality_id order by valid_from desc) as place
    from {{ ref('dim_municipality') }}

)

select
    ranked.name,
    ranked.municipality_id,
    ranked.comarca_name,
    ranked.valid_to as not_in_the_list_since,
    successions.successor_id as successor_not_in_the_list
from ranked
inner join {{ ref('int_municipality_territories') }} as territories
    on
        ranked.municipality_id = territories.municipality_id
        and not territories.is_current
        and territories.municipality_id = territories.counted_in_id
left join {{ ref('municipality_successions') }} as successions
    on ranked.municipality_id = successions.municipality_id
where ranked.place = 1
