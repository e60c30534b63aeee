"""The commands of `mla-serve`, one file each. `mla_serve/__main__.py` lists them."""

# A module here has the dataclass of the flags, whose docstrings are the help, and `run`, which takes it.
