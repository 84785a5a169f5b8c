# Everything that a specification can say comes back as it was given.
docker service create -d --no-resolve-image --name full --replicas 0 --env A=1 --env-file /dev/null --label l=1 --container-label c=2 --user 1000:1000 --group 2000 --workdir /tmp --hostname h --tty --read-only --init --stop-signal SIGUSR1 --stop-grace-period 3s --limit-cpu 0.5 --limit-memory 64M --limit-pids 100 --reserve-cpu 0.1 --reserve-memory 16M --restart-condition on-failure --restart-delay 2s --restart-max-attempts 3 --restart-window 1m --update-parallelism 2 --update-delay 1s --update-monitor 2s --update-order start-first --update-failure-action continue --update-max-failure-ratio 0.1 --rollback-parallelism 3 --rollback-delay 1s --rollback-order stop-first --rollback-monitor 1s --rollback-failure-action pause --rollback-max-failure-ratio 0.2 --constraint node.role==manager --constraint node.labels.zone!=b --placement-pref spread=node.labels.rack --dns 1.1.1.1 --dns-search example.com --dns-option ndots:2 --host a:10.0.0.1 --cap-add NET_ADMIN --cap-drop CHOWN --sysctl net.core.somaxconn=1000 --ulimit nofile=100:200 --mount type=tmpfs,target=/t,tmpfs-size=1000000,tmpfs-mode=1700 --mount type=volume,source=v,target=/v,readonly --mount type=bind,source=/tmp,target=/b,bind-propagation=rslave --log-driver json-file --log-opt max-size=1m --health-cmd true --health-interval 5s --health-retries 2 --health-timeout 1s --health-start-period 1s --replicas-max-per-node 3 --isolation default busybox sh -c 'sleep 1000'
docker service inspect full --format '{{json .Spec}}'
docker service inspect full
docker service inspect --pretty full
docker service update -d --no-resolve-image --limit-cpu 0 --limit-memory 0 --env-rm A --mount-rm /t --host-rm a:10.0.0.1 --constraint-rm node.role==manager --dns-rm 1.1.1.1 --cap-drop NET_ADMIN --sysctl-rm net.core.somaxconn --ulimit-rm nofile --container-label-rm c --group-rm 2000 --placement-pref-rm spread=node.labels.rack --no-healthcheck --args 'sleep 5' --entrypoint /bin/sh full
docker service inspect full --format '{{json .Spec}}'
docker service rm full
docker service create -d --no-resolve-image --name few --replicas 0 busybox
docker service inspect few --format '{{json .Spec}}'
docker service inspect --pretty few
docker service rm few
docker service create -d --no-resolve-image --name ports --replicas 0 --publish published=8080,target=80 --publish published=8081,target=81,protocol=udp --publish published=8082,target=82,mode=host busybox
docker service inspect ports --format '{{json .Spec.EndpointSpec}}'
docker service inspect ports --format '{{json .Endpoint.Ports}}'
docker service inspect --pretty ports
docker service ls
docker service create -d --no-resolve-image --name ports2 --replicas 0 --publish 8080:80 busybox
docker service update --no-resolve-image -d --publish-rm 8080:80 ports
docker service inspect ports --format '{{json .Endpoint.Ports}}'
docker service rm ports
