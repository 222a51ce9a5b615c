{{ applied_corrections() }}
