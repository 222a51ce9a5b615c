{#
  What the marts declare about their provenance, as rows of a `values` list: mart, dataset, role, rule and column. A mart
  declares it in its YAML, as a list under `config: meta: provenance`; the rules are those of the model `provenance`.
#}
{% macro declared_provenance() -%}
    {%- set rows = [] -%}
    {%- for node in (graph.nodes.values() if execute else []) -%}
        {%- if node.resource_type == 'model' and node.config.schema == 'marts' -%}
            {%- for entry in node.config.meta.get('provenance', []) -%}
                {%- set known = {
                    'dataset': declared_datasets().keys() | list + ['*'],
                    'rule': ['all', 'before_day', 'day', 'earlier', 'latest_years', 'newest', 'newest_if', 'snapshot', 'year'],
                    'column': node.columns.keys() | list,
                } -%}
                {%- for part in known if part in entry and entry[part] not in known[part] -%}
                    {%- do exceptions.raise_compiler_error(
                        node.name ~ ": provenance names the " ~ part ~ " " ~ entry[part] ~ "; known are " ~ known[part] | join(', ')
                    ) -%}
                {%- endfor -%}
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
