"""One folder a command, `config.yaml` in each; `recipe/` holds named sets of options."""
