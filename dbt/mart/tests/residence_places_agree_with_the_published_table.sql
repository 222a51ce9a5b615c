-- Residence places agree with the published table; the differences are the rows.
{{ config(severity='warn') }}

select
    year,
    comarca_id,
    ownership,
    basis,
    places_official,
    places_computed,
    places_difference
from {{ ref('residence_places_control') }}
where places_difference <> 0
