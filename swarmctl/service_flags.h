/* service_flags.h - the flag tables of "service create" and "service update". */
#pragma once

#include "swarmctl/flags.h"

extern const struct flag service_common_flags[], service_create_flags[], service_update_flags[];
extern const struct flag service_wait_flags[];
extern const struct flag *const service_create_tables[], *const service_update_tables[];
