"""What Slurm knows and is asked for."""
