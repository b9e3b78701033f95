// The Prometheus operator's CustomResourceDefinitions, which lie in its module as files; nothing of it is built.
module basekeeper.test/monitoring-crds

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
