# Every target can be run on a bare Debian 12 or 13; scripts/setup says what it installs, and why, before it does.

SHELL := /bin/bash
.DEFAULT_GOAL := help

BIN := .venv/bin
OLDEST_KUBERNETES := 1.34
SHELL_SCRIPTS = $(shell grep --recursive --files-with-matches --extended-regexp '^\#!.*bash' .ci scripts)
# Much of a test is waiting: for a daemon, a clock, an age. A file's tests share what they start, so they stay together,
# and files begin in the order given: those that take minutes first, or the last of them would run alone.
WORKERS := -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what development needs
	@scripts/setup test

.PHONY: demo
demo: ## see basekeeper work on a cache of its own, nothing of this host is touched
	@scripts/setup demo
	@$(BIN)/python scripts/demo.py

.PHONY: cluster-demo
cluster-demo: as-root setup kubelets ## see the chart work on two real kubelets, in namespaces of their own; root only
	@$(BIN)/python scripts/cluster_demo.py

.PHONY: as-root
as-root:
	@[ "$$(id -u)" -eq 0 ] || { echo "kubelets need root: run it as root" >&2; exit 1; }

.PHONY: test
test: setup lint controlplane tools kubelets ## everything that must hold: lint, unit tests, tests on real libvirt, qemu and Kubernetes
	$(BIN)/pytest $(WORKERS) tests/kubelet tests/image tests/cluster tests/chart tests/node tests/unit

.PHONY: test-unit
test-unit: ## the unit tests: seconds, no libvirt
	$(BIN)/pytest tests/unit

.PHONY: test-node
test-node: ## the tests on real libvirt and qemu
	$(BIN)/pytest tests/node

.PHONY: test-cluster
test-cluster: controlplane ## the tests on a real Kubernetes control plane
	$(BIN)/pytest $(WORKERS) tests/cluster

.PHONY: test-cluster-oldest
test-cluster-oldest: tools ## the same on the oldest Kubernetes that is tested
	@scripts/controlplane $(OLDEST_KUBERNETES)
	BASEKEEPER_TEST_KUBERNETES=$(OLDEST_KUBERNETES) $(BIN)/pytest $(WORKERS) tests/cluster \
		tests/chart/test_accounts.py tests/chart/test_api_server.py tests/chart/test_installation.py

.PHONY: test-chart
test-chart: controlplane tools ## the tests of the Helm chart: rendered, checked, installed into a real control plane
	$(BIN)/pytest $(WORKERS) tests/chart

.PHONY: test-kubelet
test-kubelet: as-root kubelets ## the tests on a cluster with real kubelets; root only
	$(BIN)/pytest $(WORKERS) tests/kubelet

.PHONY: test-image
test-image: ## the tests of the container image, built and run; root only
	$(BIN)/pytest tests/image

.PHONY: image
image: ## build the container image; scripts/image says how to save it
	@scripts/image

.PHONY: controlplane
controlplane: ## build what test-cluster needs, once; then it takes no time
	@scripts/controlplane $${BASEKEEPER_TEST_KUBERNETES:-current}
	@scripts/tool prometheus >/dev/null

.PHONY: tools
tools: ## build what test-chart needs, once: Helm 3 and 4, helm-docs, kube-score, promtool, actionlint
	@scripts/tool actionlint helm3 helm4 helm-docs kube-score prometheus >/dev/null

.PHONY: kubelets
kubelets: ## build what test-kubelet and cluster-demo need, once; then it takes no time
	@scripts/controlplane current kubelet kube-scheduler
	@scripts/tool containerd helm3 helm4 pause

.PHONY: lint
lint: ## ruff, mypy, the rules for imports, shellcheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck --external-sources $(SHELL_SCRIPTS)

.PHONY: format
format: ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: setup controlplane ## print figures beside what they are compared with; under an hour. One of them: make bench ONLY=pass
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

.PHONY: generate
generate: ## write what is made: deploy/crds, deploy/admission/imagecachepolicies.yaml, docs/metrics.md, docs/policy.md, the chart's copies
	$(BIN)/python scripts/generate
	@PATH=$$(scripts/tool helm-docs):$$PATH helm-docs --chart-search-root deploy/helm --sort-values-order file --log-level warning

.PHONY: pictures
pictures: controlplane ## draw the dashboards of docs/monitoring.md anew, from agents that really work; a quarter of an hour
	$(BIN)/python scripts/dashboard_pictures.py

.PHONY: lock
lock: ## take the newest versions into requirements/
	scripts/lock

.PHONY: clean
clean: ## remove what builds and tools leave behind, .venv too
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache operator/*.egg-info
	find operator lab tests scripts benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +
