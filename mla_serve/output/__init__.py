"""Where commands write. Only what the same command wrote before is replaced, and it is kept as NAME.old.

targets    what a command may replace: checked before the work begins, and again at the moment of the rename
replacing  write into a staging folder and rename it; keep the old version; lock a target against other processes
"""
