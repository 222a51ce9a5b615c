{#
  DuckDB: schemas are named exactly as configured. Elsewhere all of a candidate is in one schema, which is named after
  its run; what readers find under `marts` is made from it after the audit.
#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim if target.type == 'duckdb' else target.schema }}
{%- endmacro %}
