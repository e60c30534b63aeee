"""The model that is served: opened and proved right, swapped when MLA_MODEL changes."""
