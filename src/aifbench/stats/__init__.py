"""Statistics of a result. Pure functions; the unit of replication is the repetition."""
