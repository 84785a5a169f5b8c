# The simulations link the daemons' own archives, and fake_agent only the common ones.
SWARM_WORLD := $(patsubst %,$B/tests/sim/swarm_%.o,world managers agents users checks)
$B/tests/sim/swarm_sim: $(SWARM_WORLD) $B/tests/sim/mesh_model.o $B/orchestratord.a $B/allocatord.a $B/schedulerd.a $B/dispatcherd.a $B/raftd.a
$B/tests/sim/cad_sim: $B/cad.a $B/raftd.a
sim-tools: $B/tests/sim/fake_agent
.PHONY: sim-tools

# The Raft simulation, and the same with known bugs planted into a second build of the core: it must find each.
RAFT_WORLD := $(patsubst %,$B/tests/sim/raft_%.o,world users checks)
RAFT_PLANTED := $(patsubst %.c,$B/plant/%.o,$(filter-out %_test.c %_bench.c %_fuzz.c,$(wildcard raftd/core/*.c)))
$B/tests/sim/raft_sim: $(RAFT_WORLD)
$B/tests/sim/raft_plant_sim: $B/tests/sim/raft_plant_sim.o $(RAFT_WORLD) $(RAFT_PLANTED)
$B/plant/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC) $(CC) $(CFLAGS) -DRAFT_PLANT -Dcheck_failed=raft_plant_check_failed -MMD -MP -c -o $@ $<

# The gossip simulation; its world is the benchmark's, too.
$B/tests/sim/gossip_sim $B/meshd/gossip/gossip_bench: $B/tests/sim/gossip_world.o
