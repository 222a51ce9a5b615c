-- Every current service has a municipality; those without are published as unmatched.
{{ config(severity='warn') }}

select
    service_id,
    stated_municipality_name,
    stated_comarca_name,
    unmatched_reason
from {{ ref('service_history') }}
where
    is_current
    and municipality_id is null
