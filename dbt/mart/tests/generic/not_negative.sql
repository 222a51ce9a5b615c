{# None of the columns is below zero; nulls pass. #}
{% test not_negative(model, columns) %}

select {{ columns | join(', ') }}
from {{ model }}
where
    {{ columns | join(' < 0\n    or ') }} < 0

{% endtest %}
