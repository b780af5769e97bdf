# Needs git, make and Go; what else a target needs it fetches into .cache/.

# From the command line alone: some environments have a NAME that means the machine.
NAME = passthrough:latest
# Where programs and the bundle are built.
BIN = bin
DOCKER ?= docker
ENGINE ?=
ENGINES ?= 20.10,26.1,28.5,29
# How long each of some 30 fuzz targets runs: 3s, or 2000x for a number of inputs.
FUZZTIME ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# The commit and its date, which the programs print.
COMMIT ?= $(shell git describe --always --abbrev=12 --exclude '*' --dirty 2>/dev/null || echo unknown)
DATE = $(shell date -u -d '@$(SOURCE_DATE_EPOCH)' +%Y-%m-%dT%H:%M:%SZ)
export SOURCE_DATE_EPOCH COMMIT DOCKER NAME SET
# Also for what is only checked or tested, so that it is not compiled in two ways. The race detector needs it, see test/run.
export CGO_ENABLED = 0

# The build tags that hide Go files from a plain "go vet ./...". They go together.
TAGS = kernel,engine,lab,cluster,emulated,crashpoints,profile
# grpcnotrace leaves out pages for a debugger that nobody serves, and html/template with them. nethttpomithttp2 leaves out the HTTP/2 of
# net/http: the engine speaks HTTP/1.1, and gRPC has an HTTP/2 of its own. Functions are aligned to 16 bytes, as on arm64, not to amd64's 32: a
# hundredth of the driver is padding otherwise, and nothing that it does is about a nanosecond. PROFILE=1 adds cmd/driver/profile.go.
BUILD_TAGS := grpcnotrace,nethttpomithttp2
ifdef PROFILE
BUILD_TAGS := $(BUILD_TAGS),profile
endif
GO_BUILD := go build -tags $(BUILD_TAGS) -trimpath -buildvcs=false -ldflags "-s -w -funcalign=16 -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)"

.DEFAULT_GOAL := help
.PHONY: help build ctl cni man plugin release site install uninstall demo test test-unit test-release fuzz test-kernel test-cluster test-unique test-engine test-lab test-hw test-matrix test-arm64 test-crash campaign mixed load bench bench-cluster bench-attach bench-attach-lab bench-profile bench-plots attach.test dashboard lint clean

# What does not need Go: docs/install.md has an installation from a registry or an archive.
ifeq ($(shell command -v go),)
build ctl cni: no-go
no-go:
	@echo "This needs Go 1.26 or newer (https://go.dev/dl). An installation without it: docs/install.md, From a registry" >&2; exit 1
endif

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the plugin's binary, bin/driver
	$(GO_BUILD) -o '$(BIN)/driver' ./cmd/driver

ctl: ## the operator's tool, bin/passthroughctl
	$(GO_BUILD) -o '$(BIN)/passthroughctl' ./cmd/passthroughctl

cni: ## the CNI plugins, bin/passthrough-cni and bin/txipam
	$(GO_BUILD) -o '$(BIN)/passthrough-cni' ./cmd/passthrough-cni
	$(GO_BUILD) -o '$(BIN)/txipam' ./cmd/txipam

man: ctl ## its manual pages, bin/man
	'$(BIN)/passthroughctl' man '$(BIN)/man'

plugin: build ## the plugin bundle, bin/plugin
	plugin/rootfs-build/build '$(BIN)/driver' $(VERSION) '$(BIN)/plugin'

release: ## plugins, programs and packages for all architectures in dist/ (VERSION=v0.1.0 REGISTRY=HOST: push the plugins)
	scripts/release '$(VERSION)' dist '$(REGISTRY)'

site: ## the pages as a web site, dist/site (with mkdocs)
	scripts/site dist/site

# Settings may have characters that mean something to the shell, as in SET='DEVICES=a=ens1f*;b=ens2f0 LOG_LEVEL=debug': it has
# them from the environment, and divides them at spaces.
install: plugin ## create and enable it in the running engine (NAME=..., SET="LOG_LEVEL=debug", FORCE=1: replace)
	set -f; scripts/install bin/plugin "$$NAME" $$SET

uninstall: ## disable and remove it (NAME=...)
	scripts/uninstall "$$NAME"

demo: ## two tenants with one subnet on an emulated NIC (PF=ens2f0: on your own NIC and engine)
	PLUGIN="$$NAME" scripts/demo $(PF)

test: lint ## lint, then every layer: unit, release, fuzz, kernel, cluster, engine, lab (ENGINE=20.10, 26.1, 28.5 or 29)
	test/run --engine '$(ENGINE)' --fuzztime '$(or $(FUZZTIME),3s)' unit release fuzz kernel cluster engine lab

test-unit: ## no privileges, race detector
	test/run unit

test-release: ## the release and the web site, built and looked into
	test/run release

fuzz: ## every fuzz target, 30 s each (FUZZTIME=3s)
	test/run --fuzztime '$(or $(FUZZTIME),30s)' fuzz

test-kernel: ## real netlink in private namespaces (RUN=TestX)
	test/run --run '$(RUN)' kernel

test-cluster: ## the cluster store on real etcd servers (RUN=TestX)
	test/run --run '$(RUN)' cluster

test-unique: ## no address is given twice, whatever happens to five nodes and an etcd: 20,000 operations (OPS=20000 SEED=7)
	OPS=$(or $(OPS),20000) SEED=$(SEED) go test -tags cluster -count 1 -v -timeout 6h -run "^TestUnique$$" ./cmd/driver

test-engine: ## a private dockerd with the real plugin (RUN=TestX, RECORD=FOLDER: record its API calls)
	RECORD='$(if $(RECORD),$(abspath $(RECORD)))' test/run --run '$(RUN)' --engine '$(ENGINE)' engine

test-lab: ## SR-IOV on an emulated NIC; a swarm of two machines (RUN=TestX)
	test/run --run '$(RUN)' --engine '$(ENGINE)' lab

test-hw: ## the lab's stories of VFs on your own NIC and engine, which are left as they were (PF=ens2f0 RUN=TwoTenants)
	PF='$(PF)' test/run --run '$(RUN)' hw

test-matrix: ## the layers engine and lab on every engine, and a table of it (ENGINES=20.10,26.1,28.5,29)
	test/run --engine '$(ENGINES)' engine lab

test-arm64: ## the programs for arm64, under qemu-user: before a release
	test/run arm64

test-crash: ## the process killed at every point, on VFs as well: hours (CRASH_PART=1/3: the first third)
	CRASH_EVERY=$(or $(CRASH_EVERY),1) test/run --engine '$(ENGINE)' crash

campaign: ## random operations in the lab, with a check of everything after each (ENGINE=28.5 OPS=500 SEED=42)
	CAMPAIGN_OPS='$(or $(OPS),500)' CAMPAIGN_SEED='$(SEED)' CAMPAIGN_ONLY='$(ONLY)' test/run --engine '$(ENGINE)' campaign

mixed: ## containers of Docker, podman and CNI by lot on the same devices, with a check after each (OPS=500 SEED=42)
	MIXED_OPS='$(or $(OPS),500)' MIXED_SEED='$(SEED)' test/run --run '^TestMixed$$' --engine '$(ENGINE)' engine

load: ## 200 thin children, then 7 VFs, started and stopped at once, 20 rounds: an hour or two (ROUNDS=20 CHILDREN=200)
	LOAD_ROUNDS='$(or $(ROUNDS),20)' LOAD_CHILDREN='$(or $(CHILDREN),200)' test/run --engine '$(ENGINE)' load

bench: ## the IPAM driver beside Docker's own and CNI's host-local; links removed in turn and at once
	go test -run '^$$' -bench . ./ipamdrv/...
	go test -tags kernel -run '^$$' -bench . ./hw/rtnl
	cd test/suites/bench && go test -run '^$$' -bench . -skip '^BenchmarkP[0-9]' -timeout 30m .
	cd test/suites/bench && go test -run '^$$' -bench '^BenchmarkP[0-9]' -benchtime 15x -timeout 30m .

bench-cluster: ## a hundred nodes and pools of up to a million leases on an etcd: 10 minutes (ARGS='-pools 18 -nodes 30')
	mkdir -p .cache/test
	cd test/suites/bench && go test -run '^TestScale$$' -count 1 -v -timeout 30m ./scale -args -figures '$(abspath .cache/test/bench-cluster.json)' $(ARGS)

bench-attach: plugin attach.test ## docker run and storms of starts beside the engine's own macvlan: 15 minutes (ARGS='-runs 5 -storms 7')
	scripts/engine run $(if $(ENGINE),--engine '$(ENGINE)') -- '$(abspath .cache/test/attach.test)' -test.v -test.timeout 1h -bundle '$(abspath $(BIN)/plugin)' \
		-figures '$(abspath .cache/test/bench-attach.json)' -baseline '$(abspath test/suites/bench/attach/baseline.json)' $(ARGS)

bench-attach-lab: plugin attach.test ## the same in a guest of the lab, with VFs (ARGS as above)
	scripts/lab --guest bench up $(if $(ENGINE),--engine '$(ENGINE)')
	scripts/lab --guest bench sh 'mkdir -p /root/bench'
	scripts/lab --guest bench put '$(BIN)/plugin' .cache/test/attach.test /root/bench/
	scripts/lab --guest bench sh 'cd /root/bench && ./attach.test -test.v -test.timeout 2h -bundle plugin -pf enp1s0 -storms "" $(ARGS)'; \
		status=$$?; scripts/lab --guest bench down; exit $$status

bench-profile: ## where 63 starts and stops on VFs at once spend their time, in the lab: a flame graph, .cache/test/calls.svg; 15 minutes (VFS=7)
	$(MAKE) plugin attach.test PROFILE=1 BIN=.cache/test/profile
	scripts/lab --guest profile up --engine '$(or $(ENGINE),29)' --pf 9 --mem 8192 --smp 4
	scripts/lab --guest profile sh 'mkdir -p /root/bench'
	scripts/lab --guest profile put .cache/test/profile/plugin .cache/test/attach.test /root/bench/
	scripts/lab --guest profile sh 'cd /root/bench && ./attach.test -test.v -test.run TestAttach -test.timeout 1h -bundle plugin \
		-pf $$(echo enp{1..9}s0 | tr " " ,) -runs 1 -rounds 1 -storms "" -vf-storms $(or $(VFS),63) -profile /root/calls.folded' && \
		scripts/lab --guest profile get /root/calls.folded .cache/test/; status=$$?; scripts/lab --guest profile down; exit $$status
	cd test/suites/bench && go run ./figures/flame \
		-root '(CreateEndpoint|Join|DeleteEndpoint|endpoints\)\.releaseLater|RequestAddress|ReleaseAddress)$$' \
		-title '$(or $(VFS),63) starts and stops on VFs at once' <'$(abspath .cache/test/calls.folded)' >'$(abspath .cache/test/calls.svg)'

bench-plots: ## the pictures of docs/performance.md, of what bench-attach and bench-cluster have left
	cd test/suites/bench && go run ./figures/plots -attach '$(abspath .cache/test/bench-attach.json)' \
		-cluster '$(abspath .cache/test/bench-cluster.json)' -to '$(abspath docs)'

attach.test:
	mkdir -p .cache/test
	cd test/suites/bench && CGO_ENABLED=0 go test -c -o '$(abspath .cache/test/attach.test)' ./attach

dashboard: ## docs/dashboard.svg, which docs/metrics.md shows: panels of the dashboard, of seven minutes in the lab
	test/run --run '^TestDashboard$$' lab

# In three passes: without tags; the packages that have files with tags, with all of them; other modules. That the files of each tag also
# compile alone is seen by their layer.
lint: ## gofmt, go vet, staticcheck, for every build tag
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt -w these:" $$unformatted; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	@tagged=$$(git grep --untracked -lE '^//go:build' -- '*.go' | xargs dirname | sort -u | sed 's#^#./#'); set -x; \
	go vet -tags $(TAGS) $$tagged && go tool staticcheck -tags $(TAGS) $$tagged
	cd test/suites/bench && go vet ./...
	cd cmd/release && go vet ./...

clean: ## remove what was built (the cache in .cache/ stays)
	rm -rf bin dist .cache/test
