"""Mutation testing: small faults are put into the code one by one, and the tests must notice each (`make mutants`).

Read `__main__` for the command, `mutants` for what is changed and what is left out by rule, `runner` for how a
mutant is run, `modules.toml` for which modules and tests take part, `harmless.toml` for the named survivors.
"""
