{# The half-open periods [valid_from, valid_to) of one key are in order, not empty, and do not overlap. #}
{% test periods_do_not_overlap(model, key) %}

with periods as (

    select
        {{ key }},
        valid_from,
        valid_to,
        is_current,
        lead(valid_from) over (partition by {{ key }} order by valid_from) as next_valid_from
    from {{ model }}

)

select
    {{ key }},
    valid_from,
    valid_to,
    next_valid_from
from periods
where
    valid_to <= valid_from
    or valid_to > next_valid_from
    or (valid_to is null and next_valid_from is not null)
    or is_current <> (valid_to is null)

{% endtest %}
