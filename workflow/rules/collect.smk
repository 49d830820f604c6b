# records -> tables ------------------------------------------------------------


rule collect:
    input:
        plan=PLAN_JSON,
        batches=get_done_batches,
    output:
        cases=report(CASES, caption="../report/cases.rst", category="Tables"),
        tables=[f"{RESULTS}/tables/{name}.parquet" for name in TABLES],
    log:
        f"{RESULTS}/logs/collect.log",
    localrule: True
    conda:
        "../envs/aifbench.yaml"
    params:
        results=lambda wildcards, output: Path(output.cases).parent,
    message:
        "collect records into tables"
    script:
        "../scripts/collect.py"
