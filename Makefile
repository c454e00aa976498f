# Sidemount: run `make` for the list of targets.
SHELL      := /bin/bash
BIN        := $(CURDIR)/.cache/bin
CLUSTER    := $(BIN)/cluster
VERSION    := $(shell hack/version.sh)
NODES      ?= 1
VIRTUAL    ?= 1
N          ?= 100
export BIN VERSION

.DEFAULT_GOAL := help

##@ Try it
demo: build ## Set up a real cluster and run the main job on it: a JuiceFS volume through an unprivileged sidecar
	@hack/demo.sh up

demo-down: ## Remove everything that the demo made
	@hack/demo.sh down

##@ Build
build: ## Build the product, the JuiceFS client and the cluster's own tools into .cache/bin
	@hack/build.sh

images: ## Build the container images without Docker, as tar files in .cache/images, with the tag IMAGE_TAG (default: the chart's)
	@hack/build.sh images
	@hack/build-csi.sh
	@hack/build-images.sh

##@ Test
test: build ## Run all tests: unit (-race), integration on real FUSE mounts, end to end on a real cluster
	@hack/test.sh unit juicefs e2e

test-unit: ## Run the unit and integration tests of this module with the race detector
	@hack/test.sh unit

test-juicefs: ## Run the tests of the JuiceFS client
	@hack/test.sh juicefs

test-e2e: build ## Run the end-to-end tests on a cluster of their own
	@hack/test.sh e2e

chart-test: build ## Test the Helm chart: lint, schema, golden files; install, upgrade, roll back and uninstall on a cluster of its own
	@hack/chart-test.sh

recovery: build ## Kill clients, agents and the node's process N times below applications that notice everything (20: 1 min)
	@N=$(N) hack/recovery.sh

conformance: build ## Run Kubernetes' NodeConformance tests on the virtual node and on a kubelet; writes docs/conformance.md (30 min)
	@hack/conformance.sh node

e2e-storage: build ## Run Kubernetes' External.Storage tests on both kinds of node; writes docs/conformance.md
	@hack/conformance.sh storage

docs-test: build ## Run every command block of README.md and docs/ on a cluster of its own, with the chart installed
	@hack/docs-test.sh

docs: ## Write the generated parts of docs/reference.md anew, and check all links and tables
	@go test -count=1 ./cmd/sidemount -run Reference -update
	@go test -count=1 ./test/docs -run Reference -update && go test -count=1 ./test/docs

lint: ## Run golangci-lint (built from its module) over the Go code and shellcheck-like checks over the scripts
	@hack/lint.sh

fuzz: ## Run each fuzz target for FUZZTIME (default 60s)
	@hack/fuzz.sh

bench-io: build ## Measure reads, writes and metadata beside stock JuiceFS and a plain directory; writes docs/benchmarks.md
	@hack/bench-io.sh

bench-start: build ## Measure pod start and memory, beside the kubelet's; writes docs/benchmarks.md
	@hack/bench-start.sh

bench-csi: build ## Measure claims and Mount Pods on an ordinary node, beside plain pods; writes docs/benchmarks.md (4 min)
	@hack/bench-csi.sh

##@ Cluster
cluster-up: build ## Start a Kubernetes with NODES ordinary and VIRTUAL virtual nodes on this machine
	@hack/cluster.sh up --nodes $(NODES) --virtual $(VIRTUAL)

cluster-down: ## Stop it and leave nothing behind
	@hack/cluster.sh down

cluster-status: ## Tell what runs and where its kubeconfig is
	@hack/cluster.sh status

##@ Housekeeping
clean: ## Remove what the build made (the Go caches stay)
	rm -rf .cache

help: ## List the targets
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z0-9_-]+:.*##/ {printf "  %-16s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: docs docs-test conformance e2e-storage demo demo-down build images test test-unit test-juicefs test-e2e chart-test recovery lint fuzz bench-io bench-start bench-csi cluster-up cluster-down cluster-status clean help
