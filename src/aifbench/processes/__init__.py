"""Commands that are started, watched and ended: groups of processes, containers."""
