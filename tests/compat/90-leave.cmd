docker swarm leave
docker swarm leave --force
docker node ls
docker info --format '{{.Swarm.LocalNodeState}}'
docker swarm leave
