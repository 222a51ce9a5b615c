{{ coverage('comarca', 'comarca_id') }}
