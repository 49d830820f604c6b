"""Words that every room uses: errors, units, ids, parameters, records and the interface of a benchmark. Pure."""
