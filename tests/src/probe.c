/* A handler that shows where and by what a request is answered, and misbehaves on demand. PATH_INFO says how, the query
 * is a number. Compiled with -DVERSION=…; and with
 *   -DREPLACE           so that two builds do not work in one process;
 *   -DFLAGS=…           HOST_NOT_THREAD_SAFE and its neighbours;
 *   -DCHECK=… -DSERVE=… the code that `init` runs for HOST_INIT_CHECK and HOST_INIT_SERVE. */
#define _GNU_SOURCE
#include "host.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef REPLACE
/* Static TLS, of which a process has a fixed amount. */
__thread int in_static_tls __attribute__((tls_model("initial-exec"))) = VERSION;
#define ANSWERING in_static_tls
#else
#define ANSWERING VERSION
#endif
#ifndef FLAGS
#define FLAGS 0
#endif
#ifndef CHECK
#define CHECK
#endif
#ifndef SERVE
#define SERVE
#endif

static void wait_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static int32_t init(const host_init *arguments) {
    if (arguments->reason == HOST_INIT_CHECK) { CHECK; }
    if (arguments->reason == HOST_INIT_SERVE) { SERVE; }
    return 0;
}

HOST_EXPORT const host_module_info host_module = {
    .magic = HOST_MODULE_MAGIC, .size = sizeof(host_module_info), .abi = HOST_ABI, .flags = FLAGS, .init = init,
};

/* Until there is the file that the environ names, if it names one. */
static void wait_for_gate(host_str gate) {
    while (gate.ptr && access(gate.ptr, F_OK) != 0) wait_ms(2);
}

/* A body of so many lines, one every few milliseconds. Half-way there is the gate. */
typedef struct lines { host_body body; long count, left; host_env *env; char line[64]; } lines;

static int32_t next(host_body *body, host_str *chunk) {
    lines *self = (lines *)body;
    if (self->left == 0) return 0;
    wait_ms(5);
    if (self->left == self->count / 2) {
        self->env->errors(self->env, HOST_STR("half-way"));
        wait_for_gate(self->env->get(self->env, HOST_STR("GATE")));
    }
    int len = snprintf(self->line, sizeof self->line, "%ld\n", self->left--);
    *chunk = (host_str){self->line, (size_t)len};
    return 1;
}

static void free_lines(host_body *body) { free(body); }

/* What ls(1) prints of its own descriptors: fork and exec, as anybody may do in a handler. */
static size_t list_descriptors(char *out, size_t room) {
    int ends[2];
    if (pipe(ends) != 0) return 0;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execlp("ls", "ls", "-l", "/proc/self/fd", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    size_t len = 0;
    for (ssize_t got; len < room && (got = read(ends[0], out + len, room - len)) > 0;) len += (size_t)got;
    close(ends[0]);
    waitpid(child, NULL, 0);
    return len;
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    char version[16], process[16], thread[16], out[4096];
    host_header headers[] = {
        {HOST_STR("Content-Type"), HOST_STR("text/plain")},
        {HOST_STR("X-Version"), {version, (size_t)snprintf(version, sizeof version, "%d", ANSWERING)}},
        {HOST_STR("X-Process"), {process, (size_t)snprintf(process, sizeof process, "%ld", (long)getpid())}},
        {HOST_STR("X-Thread"), {thread, (size_t)snprintf(thread, sizeof thread, "%ld", (long)syscall(SYS_gettid))}},
    };
    host_str path = env->get(env, HOST_STR("PATH_INFO"));
    host_str query = env->get(env, HOST_STR("QUERY_STRING"));
    long number = query.ptr ? atol(query.ptr) : 0;
    start_response->call(start_response, HOST_STR("200 OK"), headers, 4, NULL);

    if (strcmp(path.ptr, "/sleep") == 0) {
        env->errors(env, HOST_STR("sleeping"));
        wait_ms(number);
    } else if (strcmp(path.ptr, "/gate") == 0) {
        env->errors(env, HOST_STR("waiting"));
        wait_for_gate(env->get(env, HOST_STR("GATE")));
        wait_ms(number);
    } else if (strcmp(path.ptr, "/lines") == 0) {
        lines *self = calloc(1, sizeof *self);
        self->body = (host_body){.size = sizeof self->body, .count = -1, .next = next, .close = free_lines};
        self->count = self->left = number;
        self->env = env;
        return &self->body;
    } else if (strcmp(path.ptr, "/large") == 0) {
        char *large = malloc((size_t)number);
        for (long at = 0; at < number; at++) large[at] = (char)('a' + at % 23);
        host_body *body = env->bytes(env, (host_str){large, (size_t)number});
        free(large);
        return body;
    } else if (strcmp(path.ptr, "/echo") == 0) {
        size_t len = 0, room = 4 << 20;
        char *content = malloc(room);
        for (int64_t got; len < room && (got = env->read(env, content + len, room - len)) > 0;) len += (size_t)got;
        host_body *body = env->bytes(env, (host_str){content, len});
        free(content);
        return body;
    } else if (strcmp(path.ptr, "/descriptors") == 0) {
        size_t len = list_descriptors(out, sizeof out);
        return env->bytes(env, (host_str){out, len});
    } else if (strcmp(path.ptr, "/die") == 0) {
        raise(SIGKILL);
    }
    return env->bytes(env, HOST_STR("answered\n"));
}
