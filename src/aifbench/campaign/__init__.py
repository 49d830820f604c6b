"""From a user's YAML to cases, batches and a plan. Pure: reads files, starts nothing."""
