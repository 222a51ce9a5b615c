with services as (

    select
        municipality_name,
        postal_code,
        comarca_name
    from {{ ref('stg_social_services') }}

),

comarques as (

    select
        comarca_key,
        comarca_id
    from {{ ref('int_comarca_names') }}

),

names as (

    select
        municipality_id,
        name_key,
        is_current_name,
        is_without_article
    from {{ ref('int_municipality_names') }}

),

memberships as (

    select
        municipality_id,
        comarca_id,
        is_current_comarca
    from {{ ref('int_municipality_comarques') }}

),

pairs as (

    select distinct
        services.municipality_name,
        services.comarca_name,
        {{ province_of('services.postal_code') }} as postal_province
    from services

),

stated as (

    select distinct
        nullif(pairs.municipality_name, '') as municipality_name,
        nullif(pairs.comarca_name, '') as comarca_name,
        pairs.postal_province,
        {{ stated_place('pairs', 'pairs.postal_province') }} as stated_place
    from pairs

),

keyed as (

    select
        stated.stated_place,
        stated.municipality_name,
        stated.comarca_name,
        stated.postal_province,
        {{ place_key('stated.municipality_name') }} as name_key,
        {{ place_key('stated.comarca_name') }} as comarca_key
    from stated

),

candidates as (

    select
        keyed.stated_place,
        names.municipality_id,
        names.is_current_name,
        names.is_without_article,
        coalesce(memberships.is_current_comarca, false) as is_in_comarca,
        memberships.municipality_id is not null as is_or_was_in_comarca
    from keyed
    left join comarques on keyed.comarca_key = comarques.comarca_key
    inner join names on keyed.name_key = names.name_key
    left join memberships
        on
            names.municipality_id = memberships.municipality_id
            and comarques.comarca_id = memberships.comarca_id

),

ranked as (

    select
        stated_place,
        municipality_id,
        is_or_was_in_comarca,
        case
            when is_current_name and is_in_comarca then 1
            when is_current_name and is_or_was_in_comarca then 2
            when is_or_was_in_comarca and not is_without_article then 3
            when is_without_article then 4
            else 5
        end as preference,
        case
            when is_current_name and is_in_comarca then 'name_in_comarca'
            when is_current_name and is_or_was_in_comarca then 'name_in_former_comarca'
            when is_current_name then 'name_unique'
            when is_without_article then 'name_without_article'
            else 'former_name'
        end as municipality_match
    from candidates
    where
        is_or_was_in_comarca
        or not is_without_article

),

preferred as (

    select
        stated_place,
        municipality_id,
        is_or_was_in_comarca,
        municipality_match,
        count(*) over (partition by stated_place, preference) as candidate_count,
        rank() over (partition by stated_place order by preference) as place
    from ranked

),

found as (

    select
        stated_place,
        min(candidate_count) as candidate_count,
        min(municipality_id) as municipality_id,
        min(municipality_match) as municipality_match,
        max(case when is_or_was_in_comarca then 1 else 0 end) = 1 as is_or_was_in_comarca
    from preferred
    where place = 1
    group by stated_place

),

checked as (

    select
        keyed.stated_place,
        keyed.municipality_name,
        keyed.name_key,
        keyed.comarca_name,
        keyed.postal_province,
        found.candidate_count,
        case when found.candidate_count = 1 then found.municipality_id end as municipality_id,
        found.municipality_match,
        coalesce(
            found.candidate_count = 1 and keyed.comarca_key <> 'no consta' and not found.is_or_was_in_comarca,
            false
        ) as comarca_contradicts,
        coalesce(
            found.candidate_count = 1 and keyed.postal_province <> substr(found.municipality_id, 1, 2),
            false
        ) as postal_code_contradicts
    from keyed
    left join found on keyed.stated_place = found.stated_place

)

-- A match may contradict the stated comarca or the postal code, not both.
select
    stated_place,
    municipality_name,
    comarca_name,
    postal_province,
    case when not (comarca_contradicts and postal_code_contradicts) then municipality_id end as municipality_id,
    case
        when municipality_id is not null and not (comarca_contradicts and postal_code_contradicts)
            then municipality_match
        else 'unmatched'
    end as municipality_match,
    case
        when comarca_contradicts and postal_code_contradicts then 'contradicted'
        when municipality_id is not null then cast(null as varchar)
        when municipality_name is null or name_key = 'no consta' then 'no_name'
        when candidate_count > 1 then 'ambiguous_name'
        else 'unknown_name'
    end as unmatched_reason,
    comarca_contradicts,
    postal_code_contradicts
from checked
