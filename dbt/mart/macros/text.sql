{# Text as it is compared: case, accents, kinds of apostrophe, hyphen and space, and the dot of l·l do not count. #}
{% macro comparable_text(text) -%}
    {%- set unified = "translate(lower(" ~ text ~ "), '’‘´`ʼ′ŀ–—‐‑-', '''''''''''''l     ')" -%}
    {%- set plain = strip_accents(unified) -%}
    {%- set geminate = replace_pattern(plain, 'l ?[·.•‧∙] ?l', 'll') -%}
    {%- set elided = replace_pattern(geminate, "\\s*''\\s*", "''") -%}
    trim({{ replace_pattern(elided, '\\s+', ' ') }})
{%- endmacro %}


{# A place name with its article in front: `Prat de Llobregat, el` becomes `el Prat de Llobregat`. #}
{% macro article_in_front(name) -%}
    {%- set articles = "[Ee]ls?|[Ll]es|[Ll]a|[Ll]os?|[Ee]s|[Ss]es|[Ss]a|[Ll]''|[Ss]''" -%}
    {%- set moved = replace_pattern(name, "^(.*?)(?:\\s*,\\s*|\\s*\\()(" ~ articles ~ ")\\s*\\)?$", "\\2 \\1") -%}
    {{ replace_pattern(moved, "^([LlSs]'') ", "\\1") }}
{%- endmacro %}


{# A place name as it is compared, wherever its article stands. #}
{% macro place_key(name) -%}
    {%- set unified = "translate(" ~ name ~ ", '’‘´`ʼ′', '''''''''''''')" -%}
    {%- set words = "replace(" ~ article_in_front("lower(trim(" ~ unified ~ "))") ~ ", ',', ' ')" -%}
    {{ comparable_text(words) }}
{%- endmacro %}


{#
  Municipality and comarca as the register states them, and the province of the postal code, in one text to join on,
  whether or not one is missing.
#}
{% macro stated_place(relation, postal_province) -%}
    coalesce({{ relation }}.municipality_name, '')
    || '␟' || coalesce({{ relation }}.comarca_name, '')
    || '␟' || coalesce({{ postal_province }}, '')
{%- endmacro %}


{#
  Province of a Spanish postal code, its first two digits; null for what is no postal code. A code of four digits lost
  the zero in front.
#}
{% macro province_of(postal_code) -%}
    case
        when
            length(trim({{ postal_code }})) in (4, 5)
            and translate(trim({{ postal_code }}), '0123456789', '          ') in ('    ', '     ')
            then substr(lpad(trim({{ postal_code }}), 5, '0'), 1, 2)
    end
{%- endmacro %}


{# Lower-case ASCII words joined by hyphens. #}
{% macro slug(text) -%}
    {%- set hyphened = replace_pattern(comparable_text(text), '[^a-z0-9]+', '-') -%}
    {{ replace_pattern(hyphened, '^-+|-+$', '') }}
{%- endmacro %}


{# A hash that is equal when all columns are, nulls included. #}
{% macro state_hash(columns) -%}
    {%- set parts = [] -%}
    {%- for column in columns -%}
        {%- do parts.append("coalesce(cast(" ~ column ~ " as varchar), '∅')") -%}
    {%- endfor -%}
    {{ md5_hex(parts | join(" || '␟' || ")) }}
{%- endmacro %}
