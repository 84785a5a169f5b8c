# microswarm: one Makefile, no recursion. A folder less its *_main.c, *_test.c and *_fuzz.c is one archive.
#   make  make deps  make check  make demo  make demo-down  make bench  make fuzz  make lint  make install
# Each also with SANITIZE=address,undefined (or thread), into a build tree of its own.

CC       := gcc
empty    :=
space    := $(empty) $(empty)
comma    := ,
B        ?= build$(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))
PREFIX   ?= /usr
DESTDIR  ?=

PKGS     := msgpack lmdb libssl libcrypto libgcrypt libsystemd libmicrohttpd libcurl jansson libnftnl libmnl cmocka libseccomp ldns
WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wno-format-truncation
CFLAGS   ?= -O2 -g
override CFLAGS += -std=gnu11 $(WARN) -fstack-protector-strong -fno-omit-frame-pointer -I. -D_GNU_SOURCE \
            $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -O1, \
              -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -ffunction-sections -fdata-sections)
# What is not called, and long tables of relocations, are left out: ten daemons have them in memory.
LDFLAGS  += $(if $(SANITIZE),-fsanitize=$(SANITIZE),-Wl$(comma)--gc-sections$(comma)-z$(comma)pack-relative-relocs) \
            -Wl,-z,relro,-z,now -Wl,--as-needed
PKGLIBS  := $(shell pkg-config --libs $(filter-out cmocka,$(PKGS)) 2>/dev/null) -lnng -lpthread

DAEMONS  := raftd gatewayd cad orchestratord allocatord schedulerd dispatcherd agentd meshd apid
TOOLS    := swarmctl
# Layers, lowest first; a layer may include those before it, a daemon all of them, nobody a daemon.
LIBS     := common/util common/proto common/template common/daemon common/object common/store raftd/core meshd/netlink \
            meshd/netmap meshd/dns meshd/esp meshd/overlay meshd/vip meshd/gossip
LIBA     := $B/raftd/core.a $(foreach l,dns esp gossip vip overlay netmap netlink,$B/meshd/$l.a) \
            $(foreach l,store object daemon template proto util,$B/common/$l.a)

BINS     := $(foreach d,$(DAEMONS) $(TOOLS),$(if $(wildcard $d/*_main.c),$B/bin/$d))

all: $(BINS)

# One short line for each command; V=1 shows them whole.
say       = $(if $(V),,@echo '  $1 $(patsubst $B/%,%,$@)';)
say_late  = $(if $(V),,@echo '  $1 $$(patsubst $B/%,%,$$@)';)

define folder
$B/$1.a: $(patsubst %.c,$B/%.o,$(filter-out %_main.c %_test.c %_fuzz.c %_bench.c,$(wildcard $1/*.c)))
	@mkdir -p $$(@D); rm -f $$@; $(AR) rcs $$@ $$^
$(patsubst %.c,$B/%,$(wildcard $1/*_test.c)): %: %.o $B/$1.a $(LIBA)
	$(call say_late,LD) $(CC) $(LDFLAGS) -o $$@ $$^ $(LIBA) $(PKGLIBS) -lcmocka
$(patsubst %.c,$B/%,$(wildcard $1/*_bench.c)): %: %.o $B/$1.a $(LIBA)
	$(call say_late,LD) $(CC) $(LDFLAGS) -o $$@ $$^ $(LIBA) $(PKGLIBS)
endef
$(foreach d,$(LIBS) $(DAEMONS) $(TOOLS),$(eval $(call folder,$d)))

define binary
$B/bin/$1: $(patsubst %.c,$B/%.o,$(wildcard $1/*_main.c)) $B/$1.a $(LIBA)
	@mkdir -p $$(@D)
	$(call say_late,LD) $(CC) $(LDFLAGS) -o $$@ $$^ $(LIBA) $(PKGLIBS)
endef
$(foreach d,$(DAEMONS) $(TOOLS),$(eval $(call binary,$d)))

$B/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC) $(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

UNIT_TESTS := $(foreach d,$(LIBS) $(DAEMONS) $(TOOLS),$(patsubst %.c,$B/%,$(wildcard $d/*_test.c)))
unit-tests: $(UNIT_TESTS)

# Every folder may bring rules of its own: fuzz targets, generated files, installation.
include $(wildcard mk/*.mk)

clean:
	rm -rf build build-*

-include $(shell find $B -name '*.d' 2>/dev/null)
.PHONY: all clean unit-tests
.SECONDARY:
