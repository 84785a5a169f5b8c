# make bench: one JSON line a figure, each with the limit or peer measured in the same run where there is one.
BENCH_SRC  := $(foreach d,$(LIBS) $(DAEMONS) $(TOOLS),$(wildcard $d/*_bench.c))
BENCH_BINS := $(BENCH_SRC:%.c=$B/%)

$B/tests/oci_raw: tests/bench/oci_raw.c
	@mkdir -p $(@D)
	$(CC) $(TOOL_CFLAGS) -o $@ $<

$B/tests/load: $B/tests/bench/load.o $(LIBA)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBA) $(PKGLIBS)

# The other `make bench` programs stand beside their daemon; this one needs two of them.
$B/tests/agents: $B/tests/bench/agents.o $(LIBA)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBA) $(PKGLIBS)

# The whole control plane, with simulated agents.
$B/tests/plane: $B/tests/bench/plane.o $(LIBA)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBA) $(PKGLIBS)

# What allocation costs is measured over raftd's own store.
$B/tests/alloc: $B/tests/bench/alloc.o $B/allocatord.a $B/raftd.a $(LIBA)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBA) $(PKGLIBS)
BENCH_BINS += $B/tests/alloc

bench-bins: $(BENCH_BINS) $B/tests/oci_raw $B/tests/load $B/tests/agents $B/tests/plane

# The package of the peer; make bench goes on without it.
bench-deps: deps

bench:
	@[ "$$(id -u)" != 0 ] || $(MAKE) --no-print-directory bench-deps >&2 || true
	@$(MAKE) --no-print-directory -j$(JOBS) all bench-bins >&2
	@failed=0; for b in $(BENCH_BINS); do $$b || failed=1; done; \
	if [ "$$(id -u)" = 0 ]; then MICROSWARM_BIN=$(abspath $B)/bin tests/bench/e2e || failed=1; \
	MICROSWARM_BIN=$(abspath $B)/bin tests/bench/swarm || failed=1; \
	MICROSWARM_BIN=$(abspath $B)/bin tests/bench/agents || failed=1; \
	MICROSWARM_BIN=$(abspath $B)/bin tests/bench/plane || failed=1; \
	else echo "bench: not run as root: no end-to-end figures" >&2; fi; exit $$failed

.PHONY: bench bench-bins bench-deps

# make soak: random changes and kills on one node for SOAK_SECONDS; storms over 3 and 5 managers of 5 minutes, checked for
# linearizability; failovers by the hundred; every end-to-end test under sanitizers.
SOAK_SECONDS ?= 3600
soak:
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@$(MAKE) --no-print-directory -j$(JOBS) SANITIZE=address,undefined B=$(ASAN) all
	@failed=0; MICROSWARM_BIN=$(abspath $B)/bin tests/soak -s $(SOAK_SECONDS) || failed=1; \
	tests/run -b $(B) -a $(ASAN) long || failed=1; exit $$failed

.PHONY: soak
