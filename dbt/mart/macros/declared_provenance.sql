{#
  What the marts declare about their provenance, as rows of a `values` list: mart, dataset, role, rule and column. A mart
  declares it in its YAML, as a list under `config: meta: provenance`; the rules are those of the model `provenance`.
#}
{% macro declared_provenance() -%}
    {%- set rows = [] -%}
    {%- for node in (graph.nodes.values() if execute else []) -%}
        {%- if node.resource_type == 'model' and node.config.schema == 'marts' -%}
            {%- for entry in node.config.meta.get('provenance', []) -%}
                {%- if entry.column is defined and entry.column not in node.columns -%}
                    {%- do exceptions.raise_compiler_error(
                        node.name ~ ": provenance names the column " ~ entry.column ~ ", which the model does not describe"
                    ) -%}
                {%- endif -%}
                {%- set values = [node.name, entry.dataset, entry.role, entry.rule, entry.get('column', '*')] -%}
                {%- do rows.append("('" ~ values | map('replace', "'", "''") | join("', '") ~ "')") -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if rows -%}
        {{ rows | sort | join(',\n    ') }}
    {%- else -%}
        ({{ (['cast(null as varchar)'] * 5) | join(', ') }})
    {%- endif -%}
{%- endmacro %}
