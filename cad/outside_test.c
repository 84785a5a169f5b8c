/* Questions to an external CA over real HTTPS, on loopback: a small server of our own signs as CFSSL does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cad/ca_root.h"
#include "cad/outside_http.h"
#include "cad/outside_text.h"
#include "common/util/check.h"
#include "common/util/clock.h"

static const char server_py[] =
    "import http.server, json, ssl, sys\n"
    "cert, key, clients, answer = sys.argv[1:5]\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_POST(self):\n"
    "        q = json.loads(self.rfile.read(int(self.headers['Content-Length'])))\n"
    "        ou = self.connection.getpeercert()\n"
    "        if self.path == '/silent':\n"
    "            self.rfile.read(1)\n"
    "            return\n"
    "        if self.path == '/big':\n"
    "            body = b'x' * 400000\n"
    "        elif self.path == '/refuse':\n"
    "            body = json.dumps({'success': False, 'result': None,\n"
    "                               'errors': [{'code': 9, 'message': 'not \\n today'}]}).encode()\n"
    "        else:\n"
    "            body = json.dumps({'success': True, 'errors': [], 'result': {'certificate':\n"
    "                open(answer).read()}, 'asked': q, 'client': bool(ou)}).encode()\n"
    "        self.send_response(500 if self.path == '/refuse' else 200)\n"
    "        self.send_header('Content-Length', str(len(body)))\n"
    "        self.end_headers()\n"
    "        self.wfile.write(body)\n"
    "    def log_message(self, *a):\n"
    "        pass\n"
    "class S(http.server.ThreadingHTTPServer):\n"
    "    def handle_error(self, *a):\n"
    "        pass\n"
    "s = S(('127.0.0.1', 0), H)\n"
    "c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
    "c.load_cert_chain(cert, key)\n"
    "c.load_verify_locations(clients)\n"
    "c.verify_mode = ssl.CERT_OPTIONAL\n"
    "s.socket = c.wrap_socket(s.socket, server_side=True)\n"
    "print(s.server_port, flush=True)\n"
    "s.serve_forever()\n";

static struct {
    char dir[64], base[64];
    struct ca_root root, other;
    sd_event *loop;
    struct outside_http *http;
    pid_t server;
    struct buf csr, signed_cert, answer;
    struct err e;
    bool done;
} t;

static char *path_of(const char *name)
{
    static char path[8][128];
    static unsigned n;
    n = (n + 1) % 8;
    snprintf(path[n], sizeof path[n], "%s/%s", t.dir, name);
    return path[n];
}

static void write_file(const char *name, struct str text)
{
    FILE *f = fopen(path_of(name), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text.p, 1, text.n, f), text.n);
    assert_int_equal(fclose(f), 0);
}

static void make_csr(EVP_PKEY *key, struct buf *ret)
{
    X509_REQ *q = X509_REQ_new();
    BIO *b = BIO_new(BIO_s_mem());
    char *p;
    assert_true(X509_REQ_set_pubkey(q, key) == 1 && X509_REQ_sign(q, key, EVP_sha256()) > 0 &&
                PEM_write_bio_X509_REQ(b, q) == 1);
    long n = BIO_get_mem_data(b, &p);
    buf_put(ret, p, (size_t)n);
    BIO_free(b);
    X509_REQ_free(q);
}

static void write_key(const char *name, EVP_PKEY *key)
{
    FILE *f = fopen(path_of(name), "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
}

static struct ca_leaf leaf(const char *id, bool manager)
{
    return (struct ca_leaf){ .node_id = str_from(id),
                             .cluster_id = STR("swarm"),
                             .manager = manager,
                             .now_s = clock_wall().ns / 1000000000,
                             .life_s = 86400 };
}

/* 127.0.0.1 is the name in the server's certificate, as a DNS name would be: curl compares addresses with IP names, so
 * the test asks for "localhost". */
static int setup(void **state)
{
    struct err e = ERR_INIT;
    struct buf cert = BUF_INIT, csr = BUF_INIT;
    EVP_PKEY *key = EVP_EC_gen("P-256"), *node = EVP_EC_gen("P-256");
    struct ca_leaf server = leaf("localhost", true), client = leaf("node1", true);
    char port[16] = "";
    int out[2];
    (void)state;
    snprintf(t.dir, sizeof t.dir, "/tmp/cad-outside-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    assert_int_equal(ca_root_make(&t.root, client.now_s, &e), 0);
    assert_int_equal(ca_root_make(&t.other, client.now_s, &e), 0);
    make_csr(key, &csr);
    make_csr(node, &t.csr);
    assert_int_equal(ca_sign(buf_str(&t.root.cert_pem), buf_str(&t.root.key_pem), buf_str(&csr), &server, &cert, &e),
                     0);
    write_file("server.crt", buf_str(&cert));
    write_key("server.key", key);
    assert_int_equal(
        ca_sign(buf_str(&t.root.cert_pem), buf_str(&t.root.key_pem), buf_str(&t.csr), &client, &t.signed_cert, &e), 0);
    write_file("node.crt", buf_str(&t.signed_cert));
    write_key("node.key", node);
    write_file("root.crt", buf_str(&t.root.cert_pem));
    write_file("server.py", (struct str){ server_py, sizeof server_py - 1 });
    assert_int_equal(pipe(out), 0);
    t.server = fork();
    if (t.server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], 1);
        close(out[0]);
        execlp("python3", "python3", path_of("server.py"), path_of("server.crt"), path_of("server.key"),
               path_of("root.crt"), path_of("node.crt"), (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    assert_non_null(f);
    assert_non_null(fgets(port, sizeof port, f));
    fclose(f);
    snprintf(t.base, sizeof t.base, "https://localhost:%ld", strtol(port, NULL, 10));
    assert_true(sd_event_default(&t.loop) >= 0);
    t.http = outside_http_new(t.loop);
    EVP_PKEY_free(key);
    EVP_PKEY_free(node);
    buf_done(&cert);
    buf_done(&csr);
    return 0;
}

static int teardown(void **state)
{
    char cmd[100];
    (void)state;
    kill(t.server, SIGKILL);
    waitpid(t.server, NULL, 0);
    t.http = outside_http_free(t.http);
    sd_event_unref(t.loop);
    ca_root_done(&t.root);
    ca_root_done(&t.other);
    buf_done(&t.csr);
    buf_done(&t.signed_cert);
    buf_done(&t.answer);
    snprintf(cmd, sizeof cmd, "rm -rf %s", t.dir);
    return system(cmd);
}

static void on_done(void *arg, struct str body, const struct err *e)
{
    (void)arg;
    t.done = true;
    t.e = *e;
    buf_clear(&t.answer);
    buf_put(&t.answer, body.p, body.n);
}

static void post(const char *path, struct str trust, bool with_cert, unsigned timeout_ms)
{
    char url[200], cert[128], key[128];
    struct buf q = BUF_INIT;
    struct ca_leaf l = leaf("node1", true);
    snprintf(url, sizeof url, "%s%s", t.base, path);
    snprintf(cert, sizeof cert, "%s/node.crt", t.dir);
    snprintf(key, sizeof key, "%s/node.key", t.dir);
    outside_question(&q, buf_str(&t.csr), &l);
    struct outside_post p = { .url = url,
                              .body = buf_str(&q),
                              .trust = trust,
                              .cert = with_cert ? cert : NULL,
                              .key = with_cert ? key : NULL,
                              .timeout_ms = timeout_ms,
                              .answer_max = OUTSIDE_ANSWER_MAX };
    t.done = false;
    outside_post(t.http, &p, on_done, NULL);
    assert_false(t.done);
    buf_done(&q);
    while (!t.done)
        assert_true(sd_event_run(t.loop, 20000000) > 0);
}

static void test_signed(void **state)
{
    struct buf cert = BUF_INIT;
    struct err e = ERR_INIT;
    struct ca_leaf l = leaf("node1", true), worker = leaf("node1", false), other = leaf("node2", true);
    uint8_t key[CA_KEY_DIGEST];
    (void)state;
    for (unsigned with_cert = 0; with_cert < 2; with_cert++) {
        post("/sign", buf_str(&t.root.cert_pem), with_cert, 10000);
        assert_string_equal(t.e.msg, "");
        buf_clear(&cert);
        assert_int_equal(outside_answer(buf_str(&t.answer), &cert, &e), 0);
        assert_true(str_eq(buf_str(&cert), buf_str(&t.signed_cert)));
        assert_non_null(strstr(buf_cstr(&t.answer), with_cert ? "\"client\": true" : "\"client\": false"));
    }
    /* what was asked arrived as CFSSL expects it */
    assert_non_null(strstr(buf_cstr(&t.answer), "\"hosts\": [\"swarm-manager\", \"node1\", \"swarm-ca\"]"));
    assert_non_null(strstr(buf_cstr(&t.answer), "\"subject\": {\"CN\": \"node1\", \"names\": [{\"OU\": "
                                                "\"swarm-manager\", \"O\": \"swarm\"}]}"));
    /* and what came back is looked at closely */
    assert_int_equal(ca_csr_check(buf_str(&t.csr), key, &e), 0);
    assert_int_equal(ca_leaf_check(buf_str(&cert), buf_str(&t.root.cert_pem), key, &l, &e), 0);
    assert_int_equal(ca_leaf_check(buf_str(&cert), buf_str(&t.other.cert_pem), key, &l, &e), -ERR_INVALID);
    assert_int_equal(ca_leaf_check(buf_str(&cert), buf_str(&t.root.cert_pem), key, &worker, &e), -ERR_INVALID);
    assert_int_equal(ca_leaf_check(buf_str(&cert), buf_str(&t.root.cert_pem), key, &other, &e), -ERR_INVALID);
    key[3] ^= 1;
    assert_int_equal(ca_leaf_check(buf_str(&cert), buf_str(&t.root.cert_pem), key, &l, &e), -ERR_INVALID);
    key[3] ^= 1;
    l.now_s += 2ll * 86400;
    assert_int_equal(ca_leaf_check(buf_str(&cert), buf_str(&t.root.cert_pem), key, &l, &e), -ERR_INVALID);
    assert_int_equal(ca_leaf_check(buf_str(&t.root.cert_pem), buf_str(&t.root.cert_pem), key, &l, &e), -ERR_INVALID);
    buf_done(&cert);
}

static void test_refused(void **state)
{
    struct buf cert = BUF_INIT;
    struct err e = ERR_INIT;
    (void)state;
    post("/refuse", buf_str(&t.root.cert_pem), false, 10000);
    assert_int_equal(t.e.code, 0);
    assert_int_equal(outside_answer(buf_str(&t.answer), &cert, &e), -ERR_IO);
    assert_string_equal(e.msg, "the external CA refused: not   today");
    post("/big", buf_str(&t.root.cert_pem), false, 10000);
    assert_int_equal(t.e.code, ERR_TOO_BIG);
    post("/silent", buf_str(&t.root.cert_pem), false, 300);
    assert_int_equal(t.e.code, ERR_IO);
    assert_non_null(strstr(t.e.msg, "timed out"));
    buf_done(&cert);
}

static void test_not_believed(void **state)
{
    (void)state;
    post("/sign", buf_str(&t.other.cert_pem), false, 10000);
    assert_int_equal(t.e.code, ERR_IO);
    assert_non_null(strstr(t.e.msg, "certificate"));
    char was[64];
    snprintf(was, sizeof was, "%s", t.base);
    snprintf(t.base, sizeof t.base, "http://localhost:1"); /* not without TLS, whoever set this */
    post("/sign", buf_str(&t.root.cert_pem), false, 10000);
    assert_int_equal(t.e.code, ERR_IO);
    snprintf(t.base, sizeof t.base, "https://localhost:1");
    post("/sign", buf_str(&t.root.cert_pem), false, 10000);
    assert_int_equal(t.e.code, ERR_IO);
    snprintf(t.base, sizeof t.base, "%s", was);
}

static void test_answers(void **state)
{
    static const char *const bad[] = { "",
                                       "null",
                                       "[]",
                                       "{}",
                                       "{\"success\":true}",
                                       "{\"success\":true,\"result\":{\"certificate\":7}}",
                                       "{\"success\":true,\"result\":{\"certificate\":\"\"}}",
                                       "{\"success\":false,\"errors\":[{}]}",
                                       "{\"success\":true,\"result\":\"certificate\"",
                                       "<html>" };
    struct buf cert = BUF_INIT;
    struct err e = ERR_INIT;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(outside_answer(str_from(bad[i]), &cert, &e), -ERR_IO);
        assert_int_equal(cert.n, 0);
    }
    buf_done(&cert);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_signed), cmocka_unit_test(test_refused),
                                        cmocka_unit_test(test_not_believed), cmocka_unit_test(test_answers) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
