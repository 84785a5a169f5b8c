# Fuzz targets are <folder>/<name>_fuzz.c, their corpus <folder>/testdata/fuzz/<name>/. `make fuzz` runs each for
# FUZZ_SECONDS under clang's libFuzzer; `make check` replays the corpus with a plain main().
FUZZ_SECONDS ?= 20
FUZZ_DIRS  := $(LIBS) $(DAEMONS) $(TOOLS)
FUZZ_SRC   := $(foreach d,$(FUZZ_DIRS),$(wildcard $d/*_fuzz.c))
FUZZ_BINS  := $(FUZZ_SRC:%.c=$B/%)
FUZZ_REPLAYS := $(FUZZ_SRC:%.c=$B/%_replay)

define fuzz_rules
$B/$1/%_fuzz: $B/$1/%_fuzz.o $B/$1.a $(LIBA)
	$$(CC) $$(LDFLAGS) -fsanitize=fuzzer -o $$@ $$^ $(LIBA) $(PKGLIBS)
$B/$1/%_fuzz_replay: $B/$1/%_fuzz.o $B/tests/fuzz_replay.o $B/$1.a $(LIBA)
	$$(CC) $$(LDFLAGS) -o $$@ $$^ $(LIBA) $(PKGLIBS)
endef
$(foreach d,$(FUZZ_DIRS),$(eval $(call fuzz_rules,$d)))

fuzz-bins: $(FUZZ_BINS)
fuzz-replays: $(FUZZ_REPLAYS)

fuzz:
	@$(MAKE) --no-print-directory -j$(JOBS) CC=clang WARN=-w SANITIZE=address,undefined B=$(B)-fuzz \
		CFLAGS='-O1 -g -fsanitize=fuzzer-no-link' fuzz-bins
	@tests/fuzz -b $(B)-fuzz -s $(FUZZ_SECONDS) $(FUZZ_SRC)

.PHONY: fuzz fuzz-bins fuzz-replays
