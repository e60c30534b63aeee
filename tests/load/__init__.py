"""A real service under load and under faults: `make soak`, `make chaos`. On this machine only, bounded in count and time."""
