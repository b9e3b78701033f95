"""What is on a compute node's disk, what uses it, and what may go. Knows no Kubernetes."""
