# Helpers of the tests: a node's process 1, and the programs inside the test images. Never sanitized: they aren't what is
# tested, and a container has no sanitizer's libraries.
TEST_TOOLS := $B/tests/node_init $B/tests/pause $B/tests/echo $B/tests/skew.so
TOOL_CFLAGS := -std=gnu11 -D_GNU_SOURCE $(WARN) -O2 -g0

all: test-tools
test-tools: $(TEST_TOOLS)

$B/tests/node_init: tests/node_init.c
	@mkdir -p $(@D)
	$(CC) $(TOOL_CFLAGS) -o $@ $<

$B/tests/skew.so: tests/skew.c
	@mkdir -p $(@D)
	$(CC) $(TOOL_CFLAGS) -shared -fPIC -o $@ $<

$B/tests/%: tests/image/%.c
	@mkdir -p $(@D)
	$(CC) $(TOOL_CFLAGS) -static -s -o $@ $<

.PHONY: test-tools
