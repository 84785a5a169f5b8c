/* "swarm ca --rotate": how far the swarm's nodes have come with the new root. */
#include <openssl/evp.h>
#include <poll.h>

#include "swarmctl/cmds.h"
#include "swarmctl/display.h"
#include "swarmctl/jpath.h"

static void digest_of(const char *pem, char out[80])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    int at = snprintf(out, 80, "sha256:");

    EVP_Digest(pem, strlen(pem), md, &n, EVP_sha256(), NULL);
    for (unsigned i = 0; i < n && at < 78; i++)
        at += snprintf(out + at, 80 - (size_t)at, "%02x", md[i]);
}

static bool same(json_t *a, json_t *b, const char *field)
{
    return strcmp(jstr(a, field), jstr(b, field)) == 0;
}

static void show(struct display *d, const char *id, const char *text, int64_t current, int64_t total)
{
    if (d)
        display_progress(
            d, &(struct progress){ .id = id, .text = text, .current = current, .total = total, .units = "nodes" });
}

/* Draws one look; true when every node has a certificate of the new root and trusts it. */
static bool draw(struct display *d, json_t *swarm, json_t *nodes)
{
    json_t *want = jget(swarm, "TLSInfo"), *n;
    int64_t certs = 0, roots = 0, all = (int64_t)json_array_size(nodes);
    char digest[80];
    size_t i;

    for_each (nodes, i, n) {
        json_t *has = jget(n, "Description.TLSInfo");
        certs += same(has, want, "CertIssuerPublicKey") && same(has, want, "CertIssuerSubject");
        roots += same(has, want, "TrustRoot");
    }
    digest_of(jstr(want, "TrustRoot"), digest);
    bool renewed = certs == all && !jbool(swarm, "RootRotationInProgress");
    show(d, "desired root digest", digest, 0, 0);
    show(d, "  rotated TLS certificates", "", certs, all);
    show(d, "  rotated CA certificates", " ", renewed ? roots : 0, all);
    return renewed && roots == all;
}

int wait_rotation(struct cli *c, bool quiet)
{
    struct display screen = { .out = c->out, .tty = c->out_tty, .columns = c->columns }, *d = quiet ? NULL : &screen;
    json_t *swarm = NULL, *nodes = NULL;
    bool done = false;
    int r = 0;

    show(d, "desired root digest", "", 0, 0);
    show(d, "  rotated TLS certificates", "", 0, 0);
    show(d, "  rotated CA certificates", " ", 0, 0);
    while (r == 0 && !done) {
        json_decref(swarm);
        json_decref(nodes);
        swarm = nodes = NULL;
        r = api_get(c, &swarm, "/swarm");
        if (r == 0)
            r = api_get(c, &nodes, "/nodes");
        if (r == 0)
            done = draw(d, swarm, nodes);
        if (r == 0 && !done)
            poll(NULL, 0, 200);
    }
    if (r != 0)
        cli_fail_api(c);
    else if (!quiet)
        fprintf(c->out, "%s", jstr(swarm, "TLSInfo.TrustRoot"));
    json_decref(swarm);
    json_decref(nodes);
    display_done(&screen);
    return r;
}
