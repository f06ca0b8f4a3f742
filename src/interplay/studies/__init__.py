"""The experiments: one module a system, where mechanism, assets and harness meet."""
