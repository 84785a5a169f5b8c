docker service ls
docker service ls -q
docker service ls --filter name=web
docker service ls --filter bogus=1
docker service create -d --no-resolve-image --name web --replicas 2 --label tier=front --stop-grace-period 50ms --update-monitor 1ms --rollback-monitor 1ms pause
@running web 2
docker service ls
docker service ls --format '{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}'
docker service ls --filter label=tier=front -q
docker service ls --filter label=tier=back
docker service ls --filter mode=global
docker service ls --filter mode=replicated
docker service ls --filter mode=bogus
docker service ls --filter name=we
docker service inspect web
docker service inspect --pretty web
docker service inspect --format '{{json .Spec}}' web
docker service inspect --format '{{json .Endpoint}}' web
docker service inspect nosuch
docker service inspect --pretty nosuch
docker service ps web
docker service ps -q web | wc -l
docker service ps --no-trunc web
docker service ps web --format '{{.Name}} {{.Image}} {{.Node}} {{.DesiredState}} {{.Error}} {{.Ports}}'
docker service ps web --filter desired-state=running
docker service ps web --filter desired-state=shutdown
docker service ps web --filter name=web.1
docker service ps web --filter node=m1
docker service ps web --filter node=nosuch
docker service ps web --filter desired-state=bogus
docker service ps web --filter bogus=1
docker service ps nosuch
docker service ps web nosuch
docker node ps self
docker node ps m1 --filter name=web.2
docker inspect --type task $(docker service ps -q web | head -1)
docker inspect $(docker service ps -q --filter name=web.1 web) --format '{{.DesiredState}} {{.Status.State}} {{.Slot}} {{.Spec.ContainerSpec.Image}}'
docker service create --no-resolve-image -d --name web pause
docker service create --no-resolve-image -d --name 'bad name' pause
docker service create --no-resolve-image -d --name -x pause
docker service create --no-resolve-image -d --name x UPPER
docker service create --no-resolve-image -d --name x --replicas -1 pause
docker service create --no-resolve-image -d --name x --mode bogus pause
docker service create --no-resolve-image -d --name x --mode global --replicas 2 pause
docker service create --no-resolve-image -d --name x --limit-memory 1M pause
docker service create --no-resolve-image -d --name x --limit-cpu 0.0001 pause
docker service create --no-resolve-image -d --name x --restart-condition bogus pause
docker service create --no-resolve-image -d --name x --constraint node.role=manager pause
docker service create --no-resolve-image -d --name x --constraint bogus pause
docker service create --no-resolve-image -d --name bind --mount type=bind,target=/x pause
docker service rm bind >$TMP/out 2>&1 || true
docker service create --no-resolve-image -d --name x --mount type=bogus,source=/y,target=/x pause
docker service create --no-resolve-image -d --name x --publish 80:80:80 pause
docker service create --no-resolve-image -d --name x --publish published=70000,target=80 pause
docker service create --no-resolve-image -d --name x --publish 8080:80/icmp pause
docker service create --no-resolve-image -d --name x --network nosuch pause
docker service create --no-resolve-image -d --name x --network ingress pause
docker service create --no-resolve-image -d --name x --secret nosuch pause
docker service create --no-resolve-image -d --name x --config nosuch pause
docker service create --no-resolve-image -d --name x --endpoint-mode bogus pause
docker service create --no-resolve-image -d --name x --update-order bogus pause
docker service create --no-resolve-image -d --name x --update-failure-action bogus pause
docker service create --no-resolve-image -d --name x --health-interval 1us pause
docker service create --no-resolve-image -d --name x --stop-signal BOGUS pause
docker service create --no-resolve-image -d --name x --ulimit bogus pause
docker service create --no-resolve-image -d --name x --env =y pause
docker service create --no-resolve-image -d --name x --hostname bad_host_ pause
docker service create --no-resolve-image -d --name x --log-driver nosuch pause
docker service rm x
docker service scale web=3
@running web 3
docker service scale -d web=1 nosuch=2
@running web 1
docker service scale web
docker service scale web=-1
docker service scale web=x
docker service update --no-resolve-image -d --label-add a=b web
docker service update --no-resolve-image -d --label-rm tier web
docker service inspect --format '{{json .Spec.Labels}}' web
docker service update -d --no-resolve-image --env-add A=1 --env-add B=2 web
@updated web
@running web 1
docker service inspect --format '{{json .Spec.TaskTemplate.ContainerSpec.Env}} {{json .PreviousSpec.TaskTemplate.ContainerSpec.Env}}' web
docker service ps web --format '{{.Name}} {{.DesiredState}}'
docker service inspect --format '{{.UpdateStatus.State}} {{.UpdateStatus.Message}}' web
docker service update -d --no-resolve-image --env-rm A web
@updated web
@running web 1
docker service rollback -d web
@updated web
@running web 1
docker service inspect --format '{{.UpdateStatus.State}} {{.UpdateStatus.Message}} {{json .Spec.TaskTemplate.ContainerSpec.Env}}' web
docker service inspect --pretty web
docker service update --no-resolve-image -d --replicas 0 web
@running web 0
docker service ls
docker service update --no-resolve-image -d --image UPPER web
docker service update --no-resolve-image -d nosuch
docker service update --no-resolve-image -d --publish-add 8080:80 --publish-add 8080:81 web
docker service rollback nosuch
docker service rm web nosuch
@gone web
docker service ps web
