# config -> plan ---------------------------------------------------------------


rule plan:
    input:
        get_config_files,
    output:
        plan=PLAN_JSON,
        table=f"{RESULTS}/plan.md",
    log:
        f"{RESULTS}/logs/plan.log",
    # First of all: with the plan there, the report can be made whenever the run ends.
    priority: 100
    localrule: True
    conda:
        "../envs/aifbench.yaml"
    params:
        config=get_config_arguments,
        digest=PLAN.digest(),
    message:
        "plan: {PLAN.size}"
    shell:
        "python -m aifbench plan {params.config:q} --no-check-machine --write --no-specs"
        " > {log:q} 2>&1"
