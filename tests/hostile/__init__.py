"""Hostile input: a corpus made by script, a fuzz of every decoder, generated requests. `make hostile`, `make fuzz`."""
