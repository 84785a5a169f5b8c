# What this host's kernel may lack, in a virtual machine that has it (emulated, slow; not part of `make check`).
DEPS_VM  := qemu-system-x86 cpio kmod busybox-static
VM_TESTS := $B/meshd/esp/esp_net_test

deps-vm:
	@apt-get install -q -y --no-install-recommends $(DEPS_VM)

check-vm: $(VM_TESTS)
	@tests/vm $B/vm $(VM_TESTS)

.PHONY: deps-vm check-vm
