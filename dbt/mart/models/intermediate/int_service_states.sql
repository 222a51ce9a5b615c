-- Services that left a wording and came back to it are looked at snapshot by snapshot; all others need no such look.
with interrupted as (

    select distinct service_id
    from {{ ref('int_service_wordings') }}
    where not is_unbroken

),

stretches as (

    select
        wordings.service_id,
        {{ register_columns('wordings') }},
        wordings.first_number,
        wordings.last_number
    from {{ ref('int_service_wordings') }} as wordings
    left join interrupted on wordings.service_id = interrupted.service_id
    where interrupted.service_id is null

    union all

    select
        services.service_id,
        {{ register_columns('services') }},
        snapshots.snapshot_number as first_number,
        snapshots.snapshot_number as last_number
    from {{ corrected('social_services') }} as services
    inner join interrupted on services.service_id = interrupted.service_id
    inner join {{ ref('int_snapshots') }} as snapshots
        on
            services.snapshot_id = snapshots.snapshot_id
            and snapshots.dataset_id = 'social_services'

),

hashed as (

    select
        service_id,
        first_number,
        last_number,
        {{ state_hash(register_column_names()) }} as state_hash
    from stretches

),

runs as (

    {{ unbroken_runs('hashed', 'service_id') }}

)

select
    runs.service_id,
    runs.first_number,
    runs.last_number,
    {{ register_columns('stretches') }}
from runs
inner join stretches
    on
        runs.service_id = stretches.service_id
        and runs.first_number = stretches.first_number
