"""The model that is served: opened and verified at the start, replaced when MLA_MODEL changes."""
