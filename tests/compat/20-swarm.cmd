docker swarm init --advertise-addr 10.77.0.11
docker swarm init --advertise-addr 10.77.0.11
docker swarm join-token worker
docker swarm join-token -q manager
docker swarm join-token bogus
docker swarm join-token --rotate worker
docker swarm join --token SWMTKN-1-x 10.77.0.11:2377
docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.Nodes}} {{.Swarm.Managers}} {{.Swarm.NodeAddr}}'
docker info --format '{{json .Swarm}}'
docker info
docker swarm leave
docker swarm unlock-key
docker swarm unlock </dev/null
docker swarm update
docker swarm update --task-history-limit 3
docker swarm update --dispatcher-heartbeat 7s --cert-expiry 48h
docker swarm update --cert-expiry 1s
docker swarm update --snapshot-interval 5000 --max-snapshots 2
docker info --format '{{json .Swarm.Cluster.Spec}}'
docker swarm update --autolock=true
docker swarm unlock-key -q
docker swarm unlock-key
docker swarm unlock-key --rotate -q
docker swarm update --autolock=false
docker swarm unlock-key -q
docker swarm ca
docker swarm ca --cert-expiry 100h
docker node ls
docker node ls -q
docker node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}} {{.TLSStatus}}'
docker node ls --filter role=worker
docker node ls --filter role=manager
docker node ls --filter name=m
docker node ls --filter name=x
docker node ls --filter membership=accepted
docker node ls --filter role=bogus
docker node ls --filter bogus=1
docker node ls --filter node.label=zone=a
docker node inspect self
docker node inspect --pretty self
docker node inspect m1 --format '{{.Spec.Role}} {{.Status.State}} {{.Status.Addr}} {{.ManagerStatus.Addr}}'
docker node inspect nosuch
docker node ps
docker node ps nosuch
docker node update --label-add zone=a --label-add rack m1
docker node ls --filter node.label=zone=a
docker node inspect m1 --format '{{json .Spec}}'
docker node update --label-rm zone m1
docker node update --label-rm nosuch m1
docker node update --availability bogus m1
docker node update --role bogus m1
docker node update --availability pause m1
docker node ls
docker node update --availability active m1
docker node demote m1
docker node promote m1
docker node promote nosuch
docker node update --label-add a=b nosuch
docker node rm m1
docker node rm --force m1
docker node rm nosuch
