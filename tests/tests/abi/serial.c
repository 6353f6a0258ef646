/* A module that must be called one at a time, and says "crowd" where it was not. /whole, /stream: as the names say.
 * /hold/NAME: makes the file GATE.NAME.in and waits for GATE.NAME.out. */
#include "host.h"
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

HOST_EXPORT const host_module_info host_module = {
    .magic = HOST_MODULE_MAGIC, .size = sizeof(host_module_info), .abi = HOST_ABI, .flags = HOST_NOT_THREAD_SAFE,
};

static atomic_int inside;

/* Takes a while in which others could come in. */
static int alone(void) {
    int others = atomic_fetch_add(&inside, 1);
    usleep(100);
    return atomic_fetch_sub(&inside, 1) == 1 && others == 0;
}

typedef struct stream {
    host_body body;
    int left;
} stream;

static int32_t next(host_body *body, host_str *chunk) {
    stream *self = (stream *)body;
    *chunk = alone() ? HOST_STR("alone ") : HOST_STR("crowd ");
    return self->left-- > 0;
}

static void close_stream(host_body *body) {
    (void)body;
    if (!alone()) fputs("crowd in close\n", stderr);
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    host_str path = env->get(env, HOST_STR("PATH_INFO"));
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    if (strcmp(path.ptr, "/multithread") == 0) return env->bytes(env, env->get(env, HOST_STR("wsgi.multithread")));
    if (strncmp(path.ptr, "/hold/", 6) == 0) {
        char name[512];
        snprintf(name, sizeof name, GATE ".%s.in", path.ptr + 6);
        close(open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
        snprintf(name, sizeof name, GATE ".%s.out", path.ptr + 6);
        while (access(name, F_OK) != 0) usleep(2000);
        return env->bytes(env, HOST_STR("held"));
    }
    if (strcmp(path.ptr, "/stream") == 0) {
        stream *self = env->alloc(env, sizeof *self);
        *self = (stream){{.size = sizeof self->body, .count = -1, .next = next, .close = close_stream}, 3};
        return alone() ? &self->body : env->bytes(env, HOST_STR("crowd"));
    }
    return env->bytes(env, alone() ? HOST_STR("alone") : HOST_STR("crowd"));
}
