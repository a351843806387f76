"""What is told of what happens: metrics, statistics, logs and traces."""
