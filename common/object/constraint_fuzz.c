/* constraint_fuzz.c - constraints as users write them, on a node: two lines, the second one is the node's text. */
#include "common/object/constraint.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *line = size ? memchr(data, '\n', size) : NULL;
    struct str text = { (const char *)data, line ? (size_t)(line - (const char *)data) : size },
               other = line ? (struct str){ line + 1, size - text.n - 1 } : STR("");
    struct strpair label = { STR("zone"), other };
    struct view_node n = { .ID = other,
                           .Spec = { .Role = other, .Labels = { &label, 1 } },
                           .Status = { .Addr = other },
                           .Description = { .Hostname = other } };
    struct constraint c, opposite;
    struct str value;
    if (!constraint_parse(text, &c))
        return 0;
    CHECK(c.key.n >= 2 && c.value.n >= 1 && c.key.p >= text.p && c.value.p + c.value.n <= text.p + text.n);
    opposite = c;
    opposite.equal = !c.equal;
    if (constraint_value(&c, &n, &value)) /* a plain comparison is true or false */
        CHECK(constraint_match(&c, &n) != constraint_match(&opposite, &n));
    else
        CHECK(!constraint_match(&c, &n) || !constraint_match(&opposite, &n));
    return 0;
}
