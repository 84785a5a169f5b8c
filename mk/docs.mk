# make docs: the reference pages, from the tables and the --help texts of what was built. Generated files are committed;
# `make docs-check` (part of make check) says when they are not current.
DOCS_DAEMONS = $(notdir $(wildcard $(DAEMONS:%=$B/bin/%)))

$B/docs/reference: $B/docs/reference.o $(LIBA)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBA) $(PKGLIBS)

docs-into: all $B/docs/reference
	@mkdir -p $(OUT)
	@for p in objects messages store; do $B/docs/reference $$p > $(OUT)/$$p.md || exit 1; done
	@{ echo "# Settings and probes"; echo; \
	echo "Each daemon reads \`/etc/microswarm/<daemon>.conf\`: \`name = value\` lines, \`#\` comments; unknown names and values"; \
	echo "out of range are errors. \`<daemon> -n\` checks the file and leaves."; \
	for d in $(DOCS_DAEMONS); do echo; echo "## $$d"; echo; echo '```'; $B/bin/$$d -h || exit 1; echo '```'; done; } > $(OUT)/settings.md

docs:
	@$(MAKE) --no-print-directory docs-into OUT=docs/reference

docs-check:
	@$(MAKE) --no-print-directory docs-into OUT=$B/docs/new >/dev/null
	@diff -ru docs/reference $B/docs/new || { echo "docs/reference is not current: make docs" >&2; exit 1; }
	@echo "docs: current"

.PHONY: docs docs-into docs-check
