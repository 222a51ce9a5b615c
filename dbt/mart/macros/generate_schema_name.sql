{# Schemas are named exactly as configured, so that readers find `marts` on every engine. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
