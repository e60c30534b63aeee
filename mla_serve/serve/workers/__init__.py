"""Where requests are computed: threads with a bounded queue, and batches of requests."""
