"""What tests of several subjects share: fakes, servers, samples, and the programs they start.

Test modules import from here and never from one another. Modules with a `main` are started as
`python -m support.NAME`; tests/conftest.py lets child processes find them.
"""
