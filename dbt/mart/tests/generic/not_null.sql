{#
  No value is null: of one column, as in dbt's own test of the name, or of several `columns` in one query, since every test
  is a node that costs time.
#}
{% test not_null(model, column_name=none, columns=none) %}

{%- set checked = columns or [column_name] %}

select {{ checked | join(', ') }}
from {{ model }}
where
    {{ checked | join(' is null\n    or ') }} is null

{% endtest %}
