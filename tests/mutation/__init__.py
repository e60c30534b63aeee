"""Change the code by one small fault at a time and see whether a test fails: `make mutants`."""
