-- The newest boundaries file puts every municipality in the comarca of the newest municipality list.
{{ config(severity='warn') }}

select
    contradictions.area_id as municipality_id,
    contradictions.name,
    contradictions.comarca_id as comarca_id_of_the_borders,
    contradictions.comarca_id_listed as comarca_id_of_the_list
from {{ ref('int_contradicting_boundaries') }} as contradictions
inner join {{ ref('int_snapshots') }} as newest
    on
        contradictions.snapshot_id = newest.snapshot_id
        and newest.dataset_id = 'boundaries'
        and newest.is_newest
