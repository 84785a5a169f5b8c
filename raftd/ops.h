/* ops.h - handlers of raftd's requests, for the route table. */
#pragma once

#include "common/daemon/rpc.h"

rpc_handler ops_on_txn, ops_on_barrier, ops_on_bootstrap, ops_on_reset, ops_on_status;
