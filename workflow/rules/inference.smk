# requests to a language model -----------------------------------------------------------------------


use rule batch as inference_batch with:
    wildcard_constraints:
        batch=r"inference-[a-z0-9.-]+",
