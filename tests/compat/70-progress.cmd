# In the foreground: converges and ends.
docker service create --no-resolve-image --name fg --replicas 2 --stop-grace-period 50ms --update-monitor 100ms busybox sleep 1000 2>&1 | tail -1
docker service create -q --no-resolve-image --name fgq --stop-grace-period 50ms --update-monitor 100ms busybox sleep 1000
docker service scale fg=3 2>&1 | tail -1
docker service scale fg=1 2>&1 | tail -1
docker service update --no-resolve-image --force fg 2>&1 | tail -1
docker service update -q --no-resolve-image --env-add X=1 fg
docker service rollback -q fg
docker service rm fg fgq
@gone fg
