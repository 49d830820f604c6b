# nearest neighbours -----------------------------------------------------------------------


use rule batch as retrieval_batch with:
    wildcard_constraints:
        batch=r"retrieval-[a-z0-9.-]+",
