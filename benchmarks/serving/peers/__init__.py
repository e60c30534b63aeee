"""What people would pick instead, each as its own documentation recommends. For benchmarks only.

Every peer reads its settings from BENCH_* environment variables: BENCH_BUNDLE (folder), BENCH_PORT, BENCH_WORKERS,
BENCH_THREADS (of one graph), BENCH_BATCH (samples that may be run together). None of them checks what it is sent.
"""
