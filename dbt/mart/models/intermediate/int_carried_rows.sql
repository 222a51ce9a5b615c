{{ carried_rows() }}
