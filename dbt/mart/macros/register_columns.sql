{# What the marts keep of a row of the register; a change of any of these ends a period. #}
{% macro register_column_names() -%}
    {{ return([
        'name', 'service_type', 'registered_on', 'places', 'address', 'district', 'postal_code',
        'municipality_name', 'comarca_name', 'owner_name', 'ownership_name',
    ]) }}
{%- endmacro %}


{# The same as a select list out of `relation`. #}
{% macro register_columns(relation) -%}
    {{ relation }}.{{ register_column_names() | join(', ' ~ relation ~ '.') }}
{%- endmacro %}
