{# What differs between the SQL of DuckDB and that of Trino and Athena (engine version 3). #}

{% macro strip_accents(text) -%}
    {{ return(adapter.dispatch('strip_accents', 'mart')(text)) }}
{%- endmacro %}

{% macro duckdb__strip_accents(text) -%}
    strip_accents({{ text }})
{%- endmacro %}

{% macro trino__strip_accents(text) -%}
    regexp_replace(normalize({{ text }}, NFD), '\p{M}', '')
{%- endmacro %}

{% macro athena__strip_accents(text) -%}
    {{ return(mart.trino__strip_accents(text)) }}
{%- endmacro %}


{# Replace every match; groups are written \1 in the replacement. #}
{% macro replace_pattern(text, pattern, replacement) -%}
    {{ return(adapter.dispatch('replace_pattern', 'mart')(text, pattern, replacement)) }}
{%- endmacro %}

{% macro duckdb__replace_pattern(text, pattern, replacement) -%}
    regexp_replace({{ text }}, '{{ pattern }}', '{{ replacement }}', 'g')
{%- endmacro %}

{% macro trino__replace_pattern(text, pattern, replacement) -%}
    regexp_replace({{ text }}, '{{ pattern }}', '{{ replacement | replace("\\", "$") }}')
{%- endmacro %}

{% macro athena__replace_pattern(text, pattern, replacement) -%}
    {{ return(mart.trino__replace_pattern(text, pattern, replacement)) }}
{%- endmacro %}


{# The values of a group in one text, in order, with a separator. #}
{% macro joined_text(value, separator, order_by) -%}
    {{ return(adapter.dispatch('joined_text', 'mart')(value, separator, order_by)) }}
{%- endmacro %}

{% macro duckdb__joined_text(value, separator, order_by) -%}
    string_agg({{ value }}, '{{ separator }}' order by {{ order_by }})
{%- endmacro %}

{% macro trino__joined_text(value, separator, order_by) -%}
    array_join(array_agg({{ value }} order by {{ order_by }}), '{{ separator }}')
{%- endmacro %}

{% macro athena__joined_text(value, separator, order_by) -%}
    {{ return(mart.trino__joined_text(value, separator, order_by)) }}
{%- endmacro %}


{# MD5 of a text, 32 hex digits in lower case. #}
{% macro md5_hex(text) -%}
    {{ return(adapter.dispatch('md5_hex', 'mart')(text)) }}
{%- endmacro %}

{% macro duckdb__md5_hex(text) -%}
    md5({{ text }})
{%- endmacro %}

{% macro trino__md5_hex(text) -%}
    lower(to_hex(md5(to_utf8({{ text }}))))
{%- endmacro %}

{% macro athena__md5_hex(text) -%}
    {{ return(mart.trino__md5_hex(text)) }}
{%- endmacro %}


{# The integers from first to last, both included, as an array to unnest. #}
{% macro integers_between(first, last) -%}
    {{ return(adapter.dispatch('integers_between', 'mart')(first, last)) }}
{%- endmacro %}

{% macro duckdb__integers_between(first, last) -%}
    generate_series({{ first }}, {{ last }})
{%- endmacro %}

{% macro trino__integers_between(first, last) -%}
    sequence({{ first }}, {{ last }})
{%- endmacro %}

{% macro athena__integers_between(first, last) -%}
    {{ return(mart.trino__integers_between(first, last)) }}
{%- endmacro %}
