"""Public simulation suites behind our interface: one file for each, `catalogue` is the way in.

The suites' packages are imported by name, with `import_module`: no environment has all of them,
and `docs/suites.md` says which has which.
"""
