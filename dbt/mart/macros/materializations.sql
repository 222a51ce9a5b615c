{#
    Tables and views on DuckDB, each by one statement. dbt's own materializations build beside the old relation and
    rename, so that readers of a relation never miss it: nobody reads a candidate while it is built, and one whose
    build fails is deleted. On Trino and Athena the adapters' own are used.
#}

{% materialization table, adapter="duckdb" %}
    {%- set relation = this.incorporate(type='table') -%}
    {{ drop_relation_if_exists(load_cached_relation(this)) }}
    {% call statement('main') -%}
        {{ create_table_as(False, relation, sql) }}
    {%- endcall %}

    {{ return({'relations': [relation]}) }}
{% endmaterialization %}


{% materialization view, adapter="duckdb" %}
    {%- set relation = this.incorporate(type='view') -%}
    {{ drop_relation_if_exists(load_cached_relation(this)) }}
    {% call statement('main') -%}
        {{ create_view_as(relation, sql) }}
    {%- endcall %}

    {{ return({'relations': [relation]}) }}
{% endmaterialization %}
