# The Debian 12 packages needed to build, run and test. `make deps` installs those that are missing (as root), and says
# which they are otherwise.
DEPS_BUILD := build-essential pkg-config libnng-dev libmsgpack-dev liblmdb-dev libssl-dev libgcrypt20-dev libsystemd-dev \
              libmicrohttpd-dev libcurl4-openssl-dev libjansson-dev libnftnl-dev libmnl-dev libcmocka-dev \
              libseccomp-dev libldns-dev
DEPS_RUN   := crun conmon skopeo nftables iproute2 util-linux mount busybox-static nng-utils tini ca-certificates \
              tar gzip bzip2 xz-utils zstd
DEPS_TEST  := python3 python3-docker docker.io docker-registry systemd curl procps clang libclang-rt-dev llvm clang-tidy \
              clang-format cppcheck shellcheck
# For `make bench` only: the peer that is measured beside us.
DEPS_BENCH := etcd-server
DEPS       := $(DEPS_BUILD) $(DEPS_RUN) $(DEPS_TEST) $(if $(filter bench%,$(MAKECMDGOALS)),$(DEPS_BENCH))

deps:
	@have() { dpkg-query -W -f '$${db:Status-Status}' "$$1" 2>/dev/null | grep -qx installed; }; \
	if ! command -v apt-get >/dev/null; then echo "deps: this is not Debian; packages needed: $(DEPS)" >&2; exit 0; fi; \
	missing=; for p in $(DEPS); do have $$p || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "deps: not run as root, so nothing was installed; missing:$$missing" >&2; exit 1; fi; \
	echo "deps: installing$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -q && apt-get install -q -y --no-install-recommends $$missing

.PHONY: deps
