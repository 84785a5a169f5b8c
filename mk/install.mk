# make install DESTDIR= PREFIX=: binaries, units, users, folders, manual pages, completions, documents.
SBINDIR  ?= $(PREFIX)/sbin
BINDIR   ?= $(PREFIX)/bin
UNITDIR  ?= $(PREFIX)/lib/systemd/system
MANDIR   ?= $(PREFIX)/share/man
DOCDIR   ?= $(PREFIX)/share/doc/microswarm
BASHDIR  ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR   ?= $(PREFIX)/share/zsh/vendor-completions
FISHDIR  ?= $(PREFIX)/share/fish/vendor_completions.d
HAVE_DAEMONS = $(notdir $(wildcard $(DAEMONS:%=$B/bin/%)))

install: all
	@$(MAKE) --no-print-directory install-files

# What is built, without looking whether it is current.
install-files:
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(UNITDIR) $(DESTDIR)$(PREFIX)/lib/sysusers.d \
		$(DESTDIR)$(PREFIX)/lib/tmpfiles.d $(DESTDIR)$(MANDIR)/man8 $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(DOCDIR) $(DESTDIR)/etc/microswarm
	for d in $(HAVE_DAEMONS); do install -m 755 $B/bin/$$d $(DESTDIR)$(SBINDIR)/microswarm-$$d || exit 1; done
	for t in $(wildcard $(TOOLS:%=$B/bin/%)); do install -m 755 $$t $(DESTDIR)$(BINDIR)/ || exit 1; done
	for u in systemd/*.service systemd/*.target; do \
		sed 's#/usr/sbin/#$(SBINDIR)/#' $$u > $(DESTDIR)$(UNITDIR)/$${u#systemd/} && chmod 644 $(DESTDIR)$(UNITDIR)/$${u#systemd/} || exit 1; done
	install -m 644 systemd/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/microswarm.conf
	install -m 644 systemd/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/microswarm.conf
	install -d $(DESTDIR)$(DOCDIR)/examples
	install -m 644 systemd/cad-external-ca.conf $(DESTDIR)$(DOCDIR)/examples/
	for m in $(wildcard */*.8); do install -m 644 $$m $(DESTDIR)$(MANDIR)/man8/microswarm-$${m##*/} || exit 1; done
	for m in $(wildcard */*.1); do install -m 644 $$m $(DESTDIR)$(MANDIR)/man1/ || exit 1; done
	install -d $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	if [ -x $B/bin/swarmctl ]; then \
		$B/bin/swarmctl completion bash > $(DESTDIR)$(BASHDIR)/swarmctl && \
		$B/bin/swarmctl completion zsh > $(DESTDIR)$(ZSHDIR)/_swarmctl && \
		$B/bin/swarmctl completion fish > $(DESTDIR)$(FISHDIR)/swarmctl.fish; fi
	install -d $(DESTDIR)$(DOCDIR)/reference
	install -m 644 README.md LICENSE $(wildcard docs/*.md) $(DESTDIR)$(DOCDIR)/
	install -m 644 $(wildcard docs/reference/*.md) $(DESTDIR)$(DOCDIR)/reference/

.PHONY: install install-files
