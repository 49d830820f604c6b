"""What a batch uses of its node while it runs, and on what it ran."""
