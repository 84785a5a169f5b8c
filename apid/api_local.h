/* api_local.h - what happens to this node's containers, as long as somebody listens to events. */
#pragma once

#include <stdbool.h>

/* local_watch - somebody listens, or nobody any more. */
void local_watch(bool wanted);
void local_close(void);
