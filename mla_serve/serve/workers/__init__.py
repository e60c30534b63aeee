"""The threads that compute answers.

threads    the worker pool: a bounded queue, and threads that take requests from it in their order
stopwatch  the stages of one request: timed, bounded in decoding, stopped when nobody waits
batching   micro-batches: requests that need the same graph at the same time run it together
"""
