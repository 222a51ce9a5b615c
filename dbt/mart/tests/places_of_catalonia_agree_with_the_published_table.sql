-- Places of Catalonia agree with the published tables within the tolerance, in the years that were observed.
-- Years read back from inscriptions are known to differ: the table itself shows by how much.
{{ config(severity='warn') }}

select
    year,
    facility,
    ownership,
    places_official,
    places_computed,
    places_difference,
    difference_reason
from {{ ref('places_control_catalonia') }}
where
    basis = 'observed'
    and not is_within_tolerance
