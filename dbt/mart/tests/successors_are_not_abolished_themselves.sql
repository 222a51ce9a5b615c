-- A successor is a municipality of today: who is merged into one that is merged later gets the last one's code.
select
    earlier.municipality_id,
    earlier.name,
    earlier.successor_id,
    later.successor_id as successor_of_the_successor
from {{ ref('municipality_successions') }} as earlier
inner join {{ ref('municipality_successions') }} as later
    on earlier.successor_id = later.municipality_id
