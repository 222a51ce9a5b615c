{#
  Text without what cannot be seen: format characters, fillers and variation selectors are removed, and every run of
  spaces, line and paragraph separators and control characters is one space, none at the ends. Format characters are
  listed, so that engines with other versions of Unicode agree.
#}
{% macro visible_text(text) -%}
    {%- set format = "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u115f-\u1160\u17b4-\u17b5\u180b-\u180f"
        ~ "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
        ~ "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff" -%}
    {%- set shown = replace_pattern(text, "[" ~ format ~ "]+", "") -%}
    trim({{ replace_pattern(shown, "[\\s\\p{Z}\\p{Cc}\u2800]+", " ") }})
{%- endmacro %}


{#
  Text as it is compared: case, accents, kinds of apostrophe, hyphen and space, invisible characters and the dot of l·l
  do not count.
#}
{% macro comparable_text(text) -%}
    {%- set unified = "translate(lower(" ~ visible_text(text) ~ "), '’‘´`ʼ′ŀ–—‐‑-', '''''''''''''l     ')" -%}
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
    {%- set unified = "translate(" ~ visible_text(name) ~ ", '’‘´`ʼ′', '''''''''''''')" -%}
    {%- set words = "replace(" ~ article_in_front("lower(" ~ unified ~ ")") ~ ", ',', ' ')" -%}
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
  the zero in front. Only what is no code at first sight is searched for invisible characters.
#}
{% macro province_of(postal_code) -%}
    case
        {%- for code in ['trim(' ~ postal_code ~ ')', visible_text(postal_code)] %}
        when
            length({{ code }}) in (4, 5)
            and translate({{ code }}, '0123456789', '          ') in ('    ', '     ')
            then substr(lpad({{ code }}, 5, '0'), 1, 2)
        {%- endfor %}
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
