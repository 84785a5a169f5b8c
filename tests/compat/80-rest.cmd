# Of what a node shows besides the swarm.
docker ps
docker ps -a --format '{{.Names}}'
docker volume ls
docker network ls --filter name=nosuch
docker network inspect nosuch
docker volume inspect nosuch
docker inspect nosuch
docker inspect --type service nosuch
docker inspect --type node nosuch
docker inspect --type task nosuch
docker logs nosuch
docker secret inspect nosuch
docker secret rm nosuch
docker config inspect nosuch
docker config rm nosuch
docker secret ls
docker config ls
docker stack ls
docker stack ps nosuch
docker stack rm nosuch
docker stack services nosuch
docker events --since 1 --until 2
docker events --filter bogus=1 --since 1 --until 2
docker system events --filter type=bogus --since 1 --until 2
