{{ coverage('municipality', 'municipality_id') }}
