# make lint: formatting, clang-tidy, cppcheck, shellcheck and the rules on who may include whom. lint-lite is the part that
# takes a second and belongs to make check. clang-tidy 14 confuses va_lists when it is given several files. autoVariables: the
# path of an error in a message is a chain of what the callers have on their stacks.
LINT_C := $(shell git ls-files '*.c' 2>/dev/null)
LINT_H := $(shell git ls-files '*.h' 2>/dev/null)

lint: lint-lite lint-format lint-tidy lint-cppcheck

lint-lite:
	@tests/lint

lint-format:
	@clang-format --dry-run -Werror $(LINT_C) $(LINT_H) && echo "clang-format: $(words $(LINT_C) $(LINT_H)) files"

lint-tidy:
	@printf '%s\n' $(LINT_C) | xargs -P $(JOBS) -n 1 sh -c 'clang-tidy --quiet "$$@" -- -std=gnu11 -I. -D_GNU_SOURCE \
		$(shell pkg-config --cflags $(PKGS) 2>/dev/null) 2>/dev/null' tidy && echo "clang-tidy: $(words $(LINT_C)) files"

lint-cppcheck:
	@cppcheck -q -j $(JOBS) --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --std=c11 -I. \
		-D_GNU_SOURCE --suppress=missingIncludeSystem --suppress=invalidPointerCast --suppress=autoVariables:common/proto/fields.c \
		--library=tests/cppcheck.cfg $(LINT_C) && echo "cppcheck: $(words $(LINT_C)) files"

.PHONY: lint lint-lite lint-format lint-tidy lint-cppcheck
