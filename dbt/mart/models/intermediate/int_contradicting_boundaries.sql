select
    boundaries.snapshot_id,
    boundaries.area_id,
    boundaries.name,
    boundaries.comarca_id,
    municipalities.comarca_id as comarca_id_listed
from {{ ref('stg_boundaries') }} as boundaries
inner join {{ ref('dim_municipality') }} as municipalities
    on
        boundaries.area_id = municipalities.municipality_id
        and municipalities.is_current
where
    boundaries.level = 'municipality'
    and boundaries.source_snapshot_id = boundaries.snapshot_id
    and boundaries.comarca_id <> municipalities.comarca_id
