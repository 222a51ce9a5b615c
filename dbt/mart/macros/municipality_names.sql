{# A comparable name of a place, article in front, without its article. #}
{% macro without_article(name_key) -%}
    {{ replace_pattern(name_key, "^(?:(?:els?|les|la|los?|es|ses|sa) |[ls]'')", "") }}
{%- endmacro %}
