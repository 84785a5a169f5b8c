/*
 * oci_raw.c - the floor of starting containers: conmon and crun by themselves, on the bundle of a real task.
 *
 * `oci_raw COUNT PARALLEL LOWER CONFIG DIR`: COUNT containers with an overlayfs root over LOWER, CONFIG being an OCI
 * config.json in which @ID@ stands for the container's id; DIR is for scratch. Prints one JSON object: seconds until
 * all ran, and the time of a single start. Stops and deletes them all before it leaves.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CONMON "/usr/bin/conmon"
#define CRUN "/usr/bin/crun"

extern char **environ;
static const char *lower, *scratch;
static char *config;

struct result {
    double started_ms; /* since the program's start; 0: failed */
    double took_ms;
};

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int run_program(char **argv)
{
    pid_t pid;
    int status;
    if (posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) != 0 || waitpid(pid, &status, 0) < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void make_bundle(const char *id, const char *bundle)
{
    static const char *const dirs[] = { "", "/rootfs", "/up", "/work", "/exit" };
    char path[PATH_MAX], opts[4 * PATH_MAX];
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        snprintf(path, sizeof path, "%s%s", bundle, dirs[i]);
        mkdir(path, 0755);
    }
    snprintf(opts, sizeof opts, "lowerdir=%s,upperdir=%s/up,workdir=%s/work", lower, bundle, bundle);
    snprintf(path, sizeof path, "%s/rootfs", bundle);
    if (mount("overlay", path, "overlay", 0, opts) < 0)
        perror("overlay");
    snprintf(path, sizeof path, "%s/config.json", bundle);
    FILE *f = fopen(path, "w");
    if (!f)
        return;
    for (const char *at = config, *mark; *at; at = mark + 4) {
        mark = strstr(at, "@ID@");
        if (!mark) {
            fputs(at, f);
            break;
        }
        fwrite(at, 1, (size_t)(mark - at), f);
        fputs(id, f);
    }
    fclose(f);
}

static int conmon_create(char *id, char *bundle, char *root)
{
    char pid_file[PATH_MAX], log[PATH_MAX], exit_dir[PATH_MAX], text[16], reply[4096];
    int sync[2];
    snprintf(pid_file, sizeof pid_file, "%s/pid", bundle);
    snprintf(log, sizeof log, "k8s-file:%s/log", bundle);
    snprintf(exit_dir, sizeof exit_dir, "%s/exit", bundle);
    if (pipe(sync) < 0 || fcntl(sync[0], F_SETFD, FD_CLOEXEC) < 0)
        return -1;
    snprintf(text, sizeof text, "%d", sync[1]);
    setenv("_OCI_SYNCPIPE", text, 1);
    char *argv[] = { (char *)CONMON,
                     (char *)"--api-version",
                     (char *)"1",
                     (char *)"-c",
                     id,
                     (char *)"-u",
                     id,
                     (char *)"-n",
                     id,
                     (char *)"-r",
                     (char *)CRUN,
                     (char *)"-b",
                     bundle,
                     (char *)"-p",
                     pid_file,
                     (char *)"-l",
                     log,
                     (char *)"--exit-dir",
                     exit_dir,
                     (char *)"--full-attach",
                     (char *)"--log-level",
                     (char *)"error",
                     (char *)"--runtime-arg",
                     (char *)"--cgroup-manager=cgroupfs",
                     (char *)"--runtime-arg",
                     (char *)"--root",
                     (char *)"--runtime-arg",
                     root,
                     NULL };
    pid_t pid;
    int bad = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
    close(sync[1]);
    ssize_t n = bad ? -1 : read(sync[0], reply, sizeof reply - 1); /* {"pid": N} once it is created */
    close(sync[0]);
    if (!bad)
        waitpid(pid, NULL, 0);
    reply[n > 0 ? n : 0] = '\0';
    return n > 0 && !strstr(reply, "-1") ? 0 : -1;
}

static void start_one(int i, struct result *r, double t0)
{
    char id[32], bundle[PATH_MAX], root[PATH_MAX];
    double t = now_ms();
    snprintf(id, sizeof id, "raw%d", i);
    snprintf(bundle, sizeof bundle, "%s/%s", scratch, id);
    snprintf(root, sizeof root, "%s/state", scratch);
    make_bundle(id, bundle);
    char *start[] = { (char *)CRUN, (char *)"--cgroup-manager=cgroupfs", (char *)"--root", root, (char *)"start", id,
                      NULL };
    if (conmon_create(id, bundle, root) != 0 || run_program(start) != 0)
        return;
    r->started_ms = now_ms() - t0;
    r->took_ms = now_ms() - t;
}

static void delete_one(int i)
{
    char id[32], path[PATH_MAX], root[PATH_MAX];
    snprintf(id, sizeof id, "raw%d", i);
    snprintf(root, sizeof root, "%s/state", scratch);
    char *argv[] = {
        (char *)CRUN, (char *)"--cgroup-manager=cgroupfs", (char *)"--root", root, (char *)"delete", (char *)"-f", id,
        NULL
    };
    run_program(argv);
    snprintf(path, sizeof path, "%s/%s/rootfs", scratch, id);
    umount2(path, MNT_DETACH);
}

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 1 << 20);
    if (!f || !text || fread(text, 1, (1 << 20) - 1, f) == 0) {
        perror(path);
        exit(1);
    }
    fclose(f);
    return text;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: oci_raw COUNT PARALLEL LOWER CONFIG DIR\n");
        return 2;
    }
    int n = (int)strtol(argv[1], NULL, 10), par = (int)strtol(argv[2], NULL, 10);
    lower = argv[3];
    config = read_all(argv[4]);
    scratch = argv[5];
    struct result *r = mmap(NULL, (size_t)n * sizeof *r, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double *took = calloc((size_t)n, sizeof *took), last = 0, t0 = now_ms();
    if (n <= 0 || par <= 0 || r == MAP_FAILED || !took) {
        free(took);
        return 2;
    }
    for (int w = 0; w < par; w++)
        if (fork() == 0) {
            for (int i = w; i < n; i += par)
                start_one(i, &r[i], t0);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    int ok = 0;
    for (int i = 0; i < n; i++)
        if (r[i].started_ms > 0) {
            took[ok++] = r[i].took_ms;
            last = r[i].started_ms > last ? r[i].started_ms : last;
        }
    for (int w = 0; w < 4; w++)
        if (fork() == 0) {
            for (int i = w; i < n; i += 4)
                delete_one(i);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    qsort(took, (size_t)ok, sizeof *took, by_value);
    printf("{\"started\": %d, \"seconds\": %.4f, \"each_ms\": %.2f}\n", ok, last / 1e3, ok ? took[ok / 2] : 0.0);
    return ok == n ? 0 : 1;
}
