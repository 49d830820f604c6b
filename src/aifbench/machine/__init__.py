"""Facts about a node: what it is, what is installed, what a site lacks."""
