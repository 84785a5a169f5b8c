# make docs: the reference pages. Generated files are committed; make check says when they are not current.
$B/docs/reference: $B/docs/reference.o $B/gatewayd/gw_authz.o $(LIBA)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBA) $(PKGLIBS)

docs: all $B/docs/reference
	@docs/generate $B docs/reference

.PHONY: docs
