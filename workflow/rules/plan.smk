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
        config=CONFIG_FILES,
        overrides=OVERRIDES,
        digest=PLAN.digest(),
    message:
        "plan: {PLAN.size}"
    script:
        "../scripts/plan.py"
