# make demo: on a fresh machine, as root: packages, build, a swarm on this host, a service on it, a request answered. It
# stays up until `make demo-down`.
demo:
	@[ "$$(id -u)" = 0 ] || { echo "demo: must be run as root: a node is made of namespaces, cgroups and mounts" >&2; exit 1; }
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@MICROSWARM_BIN=$(abspath $B)/bin tests/demo

demo-down:
	@tests/cluster down

.PHONY: demo demo-down
