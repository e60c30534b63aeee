"""Which settings serve a model fastest on this machine, found by serving it: `python -m mla_serve tune`.

choices   what is worth trying here, and when a trial is better by more than the noise
trial     one service in processes of its own, and the requests that press it

Real services are pressed, not predictors: how workers share cores, threads the interpreter and requests a batch does
not show in one process alone.
"""
