# make check: everything that is tested, the same that CI runs. tests/run prints a line a test, and the sum at the end.
# Two steps, because what `deps` installs decides how the second one links.
JOBS  ?= 2
ASAN   = $(B)-address-undefined
SIM   := $(wildcard tests/sim/*_sim.c)

check:
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory deps; else \
		echo "check: not run as root: nothing is installed, and what needs namespaces or a network is skipped" >&2; fi
	@$(MAKE) --no-print-directory check-all

check-all:
	@$(MAKE) --no-print-directory -j$(JOBS) all unit-tests fuzz-replays sim-tests $(B)/docs/reference
	@$(MAKE) --no-print-directory -j$(JOBS) SANITIZE=address,undefined B=$(ASAN) all unit-tests fuzz-replays
	@tests/run -b $(B) -a $(ASAN) $(SUITES)

# All end-to-end tests with sanitized daemons; `make check` leaves out those that take both cores for minutes.
check-asan:
	@$(MAKE) --no-print-directory -j$(JOBS) SANITIZE=address,undefined B=$(ASAN) all unit-tests fuzz-replays
	@tests/run -b $(B) -a $(ASAN) $(or $(patsubst %,asan:%,$(TESTS)),asan-all)

# Threads: the unit tests under TSan.
check-tsan:
	@$(MAKE) --no-print-directory -j$(JOBS) SANITIZE=thread B=$(B)-thread all unit-tests
	@tests/run -t 8 -b $(B)-thread unit

# The same docker commands to dockerd and to a node: see tests/compat/run.
compat:
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@MICROSWARM_BIN=$(abspath $B)/bin tests/compat/run

# The quick part of it, for the time between two edits.
check-unit: unit-tests fuzz-replays
	@tests/run -b $(B) unit fuzz

$B/tests/sim/%: $B/tests/sim/%.o $(LIBA)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBA) $(PKGLIBS)
sim-tests: $(SIM:%.c=$B/%)

.PHONY: check check-all check-asan check-tsan compat check-unit sim-tests
