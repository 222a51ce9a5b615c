{#
  Columns that compare a published number of places with that of this warehouse: both numbers, their difference, whether it
  is within the tolerance, and the first reason that applies. The relation has `basis`, `places_official`,
  `places_computed` (null where the year or comarca is not covered), `places_of_unknown_owners` and `places_unmatched`.
#}
{% macro places_comparison() -%}
    {%- set difference = "(places_computed - places_official)" -%}
    cast(places_official as bigint) as places_official,
    cast(places_computed as bigint) as places_computed,
    cast({{ difference }} as bigint) as places_difference,
    case
        when abs{{ difference }} <= {{ var('control_tolerance_places') }} then true
        when places_computed is not null
            then abs{{ difference }} <= places_official * cast({{ var('control_tolerance_ratio') }} as double)
    end as is_within_tolerance,
    case
        when {{ difference }} = 0 then cast(null as varchar)
        when {{ difference }} is null then 'not_covered'
        when basis = 'inscription' then 'read_back'
        when {{ difference }} < 0 and places_of_unknown_owners >= -{{ difference }} then 'unknown_ownership'
        when {{ difference }} < 0 and places_unmatched >= -{{ difference }} then 'unmatched_services'
        else 'unexplained'
    end as difference_reason
{%- endmacro %}
