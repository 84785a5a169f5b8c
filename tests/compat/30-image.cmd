docker image ls
docker load -i $PAUSE
docker load -q -i $BUSYBOX
docker images | sort
docker image ls -q | sort
docker image ls --no-trunc | sort
docker image ls --format '{{.Repository}}:{{.Tag}}' | sort
docker image ls busybox
docker image ls 'b*'
docker image ls nosuch
docker image ls --filter reference=pause
docker image ls --filter dangling=true
docker image ls --filter bogus=1
docker image inspect busybox
docker image inspect busybox --format '{{json .Config}}'
docker image inspect busybox:latest --format '{{.Os}} {{.Architecture}} {{.RepoTags}} {{len .RootFS.Layers}}'
docker image inspect nosuch
docker image inspect UPPER
docker tag busybox my/app:v1
docker tag nosuch x
docker tag busybox UPPER
docker images | sort
docker rmi my/app:v1
docker rmi nosuch
docker load -i /dev/null
echo nonsense | docker load
docker pull 127.0.0.1:1/x
