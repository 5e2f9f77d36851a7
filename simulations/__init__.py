"""What sees everyone at once: partitions, engines, experiments, reports."""
