"""The commands of `mla-serve`: one file each. `mla_serve/__main__.py` lists them."""
