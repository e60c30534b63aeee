"""Training by several processes that torchrun starts.

rendezvous   find the other processes, also after a restart
local_rows   which rows of a batch belong to this process, and random numbers that do not depend on the number of processes
collectives  sum, average and broadcast over the processes
"""
