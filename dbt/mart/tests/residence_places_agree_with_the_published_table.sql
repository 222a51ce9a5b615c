-- Residence places agree with the published table within the tolerance; the differences beyond it are the rows.
{{ config(severity='warn') }}

select
    control.year,
    control.comarca_id,
    comarques.name as comarca,
    control.ownership,
    control.basis,
    control.places_official,
    control.places_computed,
    control.places_difference,
    control.difference_reason
from {{ ref('residence_places_control') }} as control
left join {{ ref('dim_comarca') }} as comarques on control.comarca_id = comarques.comarca_id
where not control.is_within_tolerance
