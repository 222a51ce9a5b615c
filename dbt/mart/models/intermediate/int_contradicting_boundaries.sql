with boundaries as (

    select
        snapshot_id,
        source_snapshot_id,
        level,
        area_id,
        name,
        comarca_id
    from {{ ref('stg_boundaries') }}

),

municipalities as (

    select
        municipality_id,
        comarca_id,
        is_current
    from {{ ref('dim_municipality') }}

)

select
    boundaries.snapshot_id,
    boundaries.area_id,
    boundaries.name,
    boundaries.comarca_id,
    municipalities.comarca_id as comarca_id_listed
from boundaries
inner join municipalities
    on
        boundaries.area_id = municipalities.municipality_id
        and municipalities.is_current
where
    boundaries.level = 'municipality'
    and boundaries.source_snapshot_id = boundaries.snapshot_id
    and boundaries.comarca_id <> municipalities.comarca_id
