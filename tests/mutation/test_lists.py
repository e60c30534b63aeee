"""What `make mutants` reads: modules, their tests, and the mutants that are listed as equivalent."""

from __future__ import annotations

from tests.mutation.__main__ import ROOT, Equivalents, Mutant, changed_lines, modules

DIFF = """\
--- mla_serve/a.py
+++ mla_serve/a.py
@@ -1,3 +1,3 @@
 def f(x):
-    return zip(x, x, strict=True)
+    return zip(x, x, strict=False)
"""


def test_every_module_and_its_tests_are_there() -> None:
    for module, tests in modules().items():
        assert (ROOT / module).is_file(), module
        for test in tests:
            assert (ROOT / test).exists(), test


def test_what_is_listed_names_a_module_that_is_run_a_change_and_a_reason() -> None:
    for (module, function, change), reason in Equivalents().listed.items():
        assert module in modules()
        assert function
        assert change.startswith("- ")
        assert "\n+ " in change
        assert reason.endswith(".")


def test_a_mutant_is_known_by_its_changed_lines_wherever_they_stand() -> None:
    change = changed_lines(DIFF)
    assert change == "- return zip(x, x, strict=True)\n+ return zip(x, x, strict=False)"
    equivalents = Equivalents()
    assert "one length" in equivalents.reason(Mutant("mla_serve/a.py", "f", change, 0))
    assert not equivalents.reason(Mutant("mla_serve/a.py", "f", change.replace("False", "7"), 0))
    (module, function, change), reason = next(iter(equivalents.listed.items()))
    assert equivalents.reason(Mutant(module, function, change, 0)) == reason
    assert not equivalents.reason(Mutant(module, "another", change, 0))


def test_what_is_listed_and_survives_no_longer_is_told() -> None:
    equivalents = Equivalents()
    (module, function, change), _ = next(iter(equivalents.listed.items()))
    killed, survived = Mutant(module, function, "", 1), Mutant(module, function, change, 0)
    assert any(change in entry for entry in equivalents.stale({module: [killed]}))
    assert not any(change in entry for entry in equivalents.stale({module: [survived]}))
    assert not equivalents.stale({module: [Mutant(module, function, change, None)]})  # it was not run
