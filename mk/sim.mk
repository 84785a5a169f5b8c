# The simulations link the daemons' own archives, and fake_agent only the common ones.
$B/tests/sim/control_sim: $B/orchestratord.a $B/allocatord.a $B/schedulerd.a $B/dispatcherd.a $B/raftd.a
sim-tools: $B/tests/sim/fake_agent
.PHONY: sim-tools
