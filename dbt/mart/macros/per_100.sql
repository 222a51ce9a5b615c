{#
  Places per 100 people, rounded to 4 decimals; null without people. Scaled before the division, so that every engine
  rounds the same double and the result is equal to the last bit.
#}
{% macro per_100(places, people) -%}
    case
        when {{ people }} > 0
            then round(cast({{ places }} as double) * 1000000 / {{ people }}) / cast(10000 as double)
    end
{%- endmacro %}
