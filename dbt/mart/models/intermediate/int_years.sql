with register as (

    select
        min(snapshot_date) as first_date,
        max(snapshot_date) as last_date,
        cast(extract(year from min(snapshot_date)) as integer) as first_year,
        cast(extract(year from max(snapshot_date)) as integer) as last_year
    from {{ ref('int_snapshots') }}
    where dataset_id = 'social_services'

),

population as (

    select
        min(year) as first_year,
        max(year) as last_year
    from {{ ref('population') }}

),

span as (

    select
        register.first_year as register_year,
        register.last_date,
        case
            when population.first_year < register.first_year then population.first_year
            else register.first_year
        end as first_year,
        case
            when population.last_year > register.last_year then population.last_year
            else register.last_year
        end as last_year
    from register
    cross join population
    where register.first_date is not null

),

years as (

    select
        span.register_year,
        span.last_date,
        cast(series.year as integer) as year,
        cast(cast(series.year as varchar) || '-12-31' as date) as end_of_year
    from span
    cross join unnest({{ integers_between('span.first_year', 'span.last_year') }}) as series (year)

)

select
    year,
    case when year < register_year then 'inscription' else 'observed' end as basis,
    case when end_of_year < last_date then end_of_year else last_date end as reference_date
from years
