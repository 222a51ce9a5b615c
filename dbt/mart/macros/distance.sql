{# Mean radius of the Earth (IUGG), metres. #}
{% macro earth_radius_m() -%}
    6.3710088e6
{%- endmacro %}


{# Degrees as radians; the factor is a double on every engine. #}
{% macro as_radians(degrees) -%}
    cast({{ degrees }} as double) * 1.7453292519943295e-2
{%- endmacro %}


{#
  Great-circle distance in whole metres by the haversine formula, between two points in radians. Whole, so that
  engines whose sines differ in the last bit still agree.
#}
{% macro haversine_m(latitude_a, longitude_a, latitude_b, longitude_b) -%}
    {%- set across = "sin((" ~ latitude_b ~ " - " ~ latitude_a ~ ") / 2e0)" -%}
    {%- set along = "sin((" ~ longitude_b ~ " - " ~ longitude_a ~ ") / 2e0)" -%}
    {%- set cosines = "cos(" ~ latitude_a ~ ") * cos(" ~ latitude_b ~ ")" -%}
    {%- set haversine = across ~ " * " ~ across ~ " + " ~ cosines ~ " * " ~ along ~ " * " ~ along -%}
    cast(round(2e0 * {{ earth_radius_m() }} * asin(sqrt(least(1e0, {{ haversine }})))) as integer)
{%- endmacro %}


{# Whole metres as kilometres, to three decimals. #}
{% macro metres_as_km(metres) -%}
    cast({{ metres }} as double) / 1e3
{%- endmacro %}
