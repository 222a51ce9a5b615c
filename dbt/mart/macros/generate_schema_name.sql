{#
  DuckDB: schemas are named as configured. On other engines a candidate is one schema, named after its run; the schema that
  readers query is made from it after the audit.
#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim if target.type == 'duckdb' else target.schema }}
{%- endmacro %}
