# Secrets and configs: objects, and what services ask of them.
printf hunter2 > $TMP/pw; printf 'port=80\n' > $TMP/conf; head -c 512000 /dev/zero > $TMP/long
docker secret create --label team=a --label b pw $TMP/pw
docker secret create piped $TMP/pw
docker secret ls
docker secret ls --format '{{.Name}} {{.Driver}} {{.Labels}}'
docker secret ls --filter name=p --filter label=team=a
docker secret ls -q --filter name=nosuch
docker secret ls --filter bogus=1
docker secret inspect pw
docker secret inspect --pretty pw
docker secret inspect pw nosuch
docker secret create pw $TMP/pw
docker secret create 'a b' $TMP/pw
docker secret create -x $TMP/pw
docker secret create toolong $TMP/long
docker secret create empty /dev/null
docker secret rm nosuch
docker config create --label team=a --template-driver golang appcfg $TMP/conf
docker config create long $TMP/long
docker config ls
docker config inspect appcfg
docker config inspect --pretty appcfg
docker config create appcfg $TMP/conf
docker config rm nosuch long
docker service create -d --no-resolve-image --name sec1 --replicas 0 --secret pw --secret source=piped,target=/etc/p,uid=1,gid=2,mode=0400 --config source=appcfg,target=/etc/app busybox top
docker service create -d --no-resolve-image --name sec2 --replicas 0 --secret source=pw,target=/etc/p,uid=1,gid=2,mode=0400 --config appcfg busybox top
docker service inspect sec2 --format '{{json .Spec.TaskTemplate.ContainerSpec.Secrets}} {{json .Spec.TaskTemplate.ContainerSpec.Configs}}'
docker service inspect --pretty sec2
docker service update -d --secret-rm pw --config-rm appcfg sec2
docker service inspect sec2 --format '{{json .Spec.TaskTemplate.ContainerSpec.Secrets}} {{json .Spec.TaskTemplate.ContainerSpec.Configs}}'
docker service rm sec2
docker secret rm pw
docker config rm appcfg
docker service create -d --no-resolve-image --name sec2 --secret nosuch busybox top
docker service create -d --no-resolve-image --name sec2 --secret pw --secret source=piped,target=pw busybox top
docker service create -d --no-resolve-image --name sec3 --hostname '{{.Foo}}' busybox top
docker service create -d --no-resolve-image --name sec3 --env 'A={{.Service.Foo}}' busybox top
docker service create -d --no-resolve-image --name sec3 --mount 'type=volume,source={{.Node.Foo.Bar}},target=/x' busybox top
docker service create -d --no-resolve-image --name sec3 --env 'A={{.Service.Name' busybox top
docker service create -d --no-resolve-image --name sec3 --env 'A={{nosuch}}' busybox top
docker service create -d --no-resolve-image --name sec3 --env 'A={{.Task.Name.Foo}}' busybox top
docker service create -d --no-resolve-image --name sec3 --env 'A={{if}}' busybox top
docker service create -d --no-resolve-image --name sec4 --replicas 0 --hostname '{{.Service.Name}}-{{.Task.Slot}}' --label tier=gold --env 'A={{index .Service.Labels "tier"}} {{join "-" "a" "b"}} {{.Node.Platform.OS}}' busybox sh -c 'hostname; echo $A; sleep 1000'
docker service rm sec1 sec4
docker secret rm pw piped
docker config rm appcfg
docker secret ls
docker config ls
