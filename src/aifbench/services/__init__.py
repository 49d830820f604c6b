"""Client, monitor and log: three small web services over the same files, for one user, on a socket of one's own."""
