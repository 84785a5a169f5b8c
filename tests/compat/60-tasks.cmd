# What becomes of tasks: exit codes, errors, logs.
docker service create -d --no-resolve-image --name fails --restart-condition none busybox sh -c 'echo out; echo err >&2; exit 3'
@failed fails 1
docker service ps fails --no-trunc
docker service logs --raw fails 2>&1 | sort
docker service logs fails 2>&1 | sort | sed 's/\.[a-z0-9]*@/.ID@/'
docker service inspect fails --format '{{.UpdateStatus}}'
docker service create -d --no-resolve-image --name ends --restart-condition none busybox true
@complete ends 1
docker service ps ends --no-trunc
docker service ls
docker service create -d --no-resolve-image --name nocmd --restart-condition none busybox /no/such/command
@failed nocmd 1
docker service ps nocmd --no-trunc
docker service create -d --no-resolve-image --name noimage --restart-condition none nosuch.invalid/none:1
@rejected noimage 1
docker service ps noimage
docker service create -d --no-resolve-image --name nomount --restart-condition none --mount type=bind,source=/no/such/place,target=/x busybox true
@rejected nomount 1
docker service ps nomount --no-trunc
docker service create -d --no-resolve-image --name nouser --restart-condition none --user nosuch busybox true
@failed nouser 1
docker service ps nouser --no-trunc
docker service create -d --no-resolve-image --name noplace --constraint node.role==worker busybox sleep 1000
@pending noplace 1
docker service ps noplace --no-trunc
docker service create -d --no-resolve-image --name toobig --reserve-cpu 1000 busybox sleep 1000
@pending toobig 1
docker service ps toobig --no-trunc
docker service create -d --no-resolve-image --name bigmem --reserve-memory 100T busybox sleep 1000
@pending bigmem 1
docker service ps bigmem --no-trunc
docker service ls
docker node ps --no-trunc
docker service logs nosuch
docker service logs noplace
docker service rm fails ends nocmd noimage nomount nouser noplace toobig bigmem
docker service ls
