# A node that is in no swarm yet.
docker version
docker version --format '{{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Server.Os}} {{.Server.Arch}}'
docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.NodeID}}'
docker info --format '{{.OSType}} {{.Architecture}} {{.NCPU}} {{.MemTotal}} {{.Name}}'
docker info
docker node ls
docker node inspect self
docker node ps
docker service ls
docker service ps web
docker service inspect web
docker service create --no-resolve-image busybox
docker service rm web
docker service scale web=3
docker service logs web
docker secret ls
docker config ls
docker stack ls
docker swarm leave
docker swarm update --task-history-limit 3
docker swarm join-token worker
docker swarm unlock-key
docker swarm unlock </dev/null
docker swarm ca
docker swarm join --token nonsense 10.77.0.11:2377
docker swarm init --advertise-addr nosuch0
docker swarm init --advertise-addr 10.77.0.11 --availability bogus
docker swarm init --advertise-addr 10.77.0.11 --cert-expiry 1m
docker swarm leave --force >$TMP/out 2>&1 || true
docker swarm init --advertise-addr 10.77.0.11 --listen-addr 10.77.0.11:99999
